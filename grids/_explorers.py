"""Live tables of `dora grid`: one for jobs that train, one for jobs that are a single stage of a trained model.

A table has a column for every setting in which the jobs differ and for every metric that any job has; the rows are those of
`magnet grid-report`.
"""
import time

import treetable
from dora import Explorer
from dora.shep import Sheep

from magnet_plugin.sweeps.jobs import plain
from magnet_plugin.sweeps.records import Epoch, Job, read_job, span_of_time
from magnet_plugin.sweeps.rows import Row, columns, metric, row_of
from magnet_plugin.sweeps.settings import varied


class LiveExplorer(Explorer):
    """What both have in common. Dora shows it all jobs in turn, and then asks for the columns."""
    stages: tuple[str, ...] = ()
    progress: tuple[str, ...] = ()

    def __init__(self, explore) -> None:                        # type: ignore[no-untyped-def]
        super().__init__(explore)
        self._shown: list[tuple[Job, Row, dict]] = []

    def get_grid_meta(self) -> list:
        return [treetable.leaf("index", align=">"), treetable.leaf("sig", align=">"), treetable.leaf("sid")]

    def process_sheep(self, sheep: Sheep, history: list[Epoch]) -> dict:
        """A line: group -> column -> value. `history` may be shorter than what is on disk (`dora grid --trim`)."""
        job = read_job(sheep.xp.folder, list(sheep.xp.argv), plain(sheep.xp.cfg), history, sheep.state())
        row = row_of(job)
        line: dict = {"job": {}, "run": {"state": job.state, "ping": ping(job, sheep)}}
        if not job.stage_alone:
            line["run"]["epoch"] = f"{job.epochs}/{job.epochs_wanted}"
        for key, value in row.items():
            stage, name = key.split(".", 1)
            line.setdefault(stage, {})[name] = value
        self._shown.append((job, row, line["job"]))
        return line

    def get_grid_metrics(self) -> list:
        """The columns for the jobs that were shown since the last call."""
        shown, self._shown = self._shown, []
        settings = varied([job for job, _, _ in shown])
        for index, (_, _, cells) in enumerate(shown):
            cells.update({setting.key: setting.shown(index) for setting in settings})
        found = columns([row for _, row, _ in shown], self.stages)
        groups = [treetable.group("job", [treetable.leaf(setting.key, display=setting.name,
                                                         align=">" if setting.numbers else "<") for setting in settings]),
                  treetable.group("run", [treetable.leaf(name) for name in self.progress])]
        for stage in self.stages:
            names = [key.split(".", 1)[1] for key in found if key.startswith(f"{stage}.")]
            groups.append(treetable.group(stage, [treetable.leaf(name, metric(name).format, display=metric(name).head)
                                                  for name in names], align=">"))
        return [group.update(shorten=False) for group in groups]      # treetable leaves out those without a column


def ping(job: Job, sheep: Sheep) -> str:
    """Time since the job's last sign of life: a line of its own log or of SLURM's, or an epoch."""
    seconds = [] if job.quiet is None else [job.quiet]
    if sheep.log is not None and sheep.log.exists():
        seconds.append(max(0.0, time.time() - sheep.log.stat().st_mtime))
    return span_of_time(min(seconds)) if seconds else ""


class TrainExplorer(LiveExplorer):
    """The table of a grid that trains: progress, losses in nats, and what the last epoch evaluated and generated."""
    stages = ("train", "valid", "evaluate", "generate")
    progress = ("state", "epoch", "ping")


class EvalExplorer(LiveExplorer):
    """The table of a grid of `execute_only=evaluate`, `generate` or `valid`."""
    stages = ("valid", "evaluate", "generate")
    progress = ("state", "ping")
