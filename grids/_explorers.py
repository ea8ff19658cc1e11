"""Live tables of `dora grid`: one for grids that train, one for grids that run a single stage of trained models.

A table has a column for every setting in which the jobs differ and for every metric that any job has, with the same values
as `magnet grid-report`.
"""
import time

import treetable
from dora import Explorer
from dora.shep import Sheep

from magnet_plugin.sweeps.jobs import plain_config
from magnet_plugin.sweeps.records import Epoch, Job, format_duration, read_job
from magnet_plugin.sweeps.rows import Row, columns, metric, row_of
from magnet_plugin.sweeps.settings import varying_settings


class LiveExplorer(Explorer):
    """Base of both tables. Dora calls `process_sheep` for every job, then `get_grid_metrics` for the columns."""
    stages: tuple[str, ...] = ()
    progress: tuple[str, ...] = ()

    def __init__(self, explore) -> None:                        # type: ignore[no-untyped-def]
        super().__init__(explore)
        self._shown: list[tuple[Job, Row, dict]] = []

    def get_grid_meta(self) -> list:
        return [treetable.leaf("index", align=">"), treetable.leaf("sig", align=">"), treetable.leaf("sid")]

    def process_sheep(self, sheep: Sheep, history: list[Epoch]) -> dict:
        """Return a row: group -> column -> value. `history` may be a part of the stored one (`dora grid --trim`)."""
        job = read_job(sheep.xp.folder, list(sheep.xp.argv), plain_config(sheep.xp.cfg), history, sheep.state())
        row = row_of(job)
        line: dict = {"job": {}, "run": {"state": job.state, "ping": ping(job, sheep)}}
        if not job.single_stage:
            line["run"]["epoch"] = f"{job.epochs}/{job.epochs_wanted}"
        for key, value in row.items():
            stage, name = key.split(".", 1)
            line.setdefault(stage, {})[name] = value
        self._shown.append((job, row, line["job"]))
        return line

    def get_grid_metrics(self) -> list:
        """Return the columns for the jobs processed since the last call."""
        shown, self._shown = self._shown, []
        settings = varying_settings([job for job, _, _ in shown])
        for index, (_, _, cells) in enumerate(shown):
            cells.update({setting.key: setting.display(index) for setting in settings})
        found = columns([row for _, row, _ in shown], self.stages)
        groups = [treetable.group("job", [treetable.leaf(setting.key, display=setting.name,
                                                         align=">" if setting.numbers else "<") for setting in settings]),
                  treetable.group("run", [treetable.leaf(name) for name in self.progress])]
        for stage in self.stages:
            names = [key.split(".", 1)[1] for key in found if key.startswith(f"{stage}.")]
            groups.append(treetable.group(stage, [treetable.leaf(name, metric(name).format, display=metric(name).head)
                                                  for name in names], align=">"))
        return [group.update(shorten=False) for group in groups]      # treetable omits empty groups


def ping(job: Job, sheep: Sheep) -> str:
    """Return the time since the job last wrote to its log, to SLURM's log or to its history."""
    seconds = [] if job.idle is None else [job.idle]
    if sheep.log is not None and sheep.log.exists():
        seconds.append(max(0.0, time.time() - sheep.log.stat().st_mtime))
    return format_duration(min(seconds)) if seconds else ""


class TrainExplorer(LiveExplorer):
    """Table of a grid that trains: progress, losses in nats per token, and the last evaluation and generation."""
    stages = ("train", "valid", "evaluate", "generate")
    progress = ("state", "epoch", "ping")


class EvalExplorer(LiveExplorer):
    """Table of a grid whose jobs run one stage: `execute_only=evaluate`, `generate` or `valid`."""
    stages = ("valid", "evaluate", "generate")
    progress = ("state", "ping")
