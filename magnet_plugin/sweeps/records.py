"""What Dora keeps of one job: its history, its settings, how far it got. Reads plain files, imports nothing heavy."""
from __future__ import annotations

import dataclasses
import json
import re
import time
import typing as tp
from pathlib import Path

Epoch = dict[str, dict[str, float]]          # stage -> metric -> value, as in Dora's history.json
Config = tp.Mapping[str, tp.Any]

#: Beside history.json: the metrics of stages that were run alone (`execute_only`). In place Dora is not told of them, and
#: out of place a second stage of the same signature would overwrite the first one's history.
STAGES_FILE = "stages.json"
#: Beside history.json: where and with what the job ran last, as `metrics.machine.made_with` tells it.
MACHINE_FILE = "machine.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """One job of a grid.

    Args:
        signature: Dora's.
        argv: its overrides; None where nobody kept them.
        cfg: its config, interpolations as written; empty where it is not known.
        history: an entry per epoch, or one of a stage that was run alone.
        stages: stage -> metrics, of stages run alone; see `STAGES_FILE`.
        machine: see `MACHINE_FILE`.
        begun: it has written a log or a history.
        fault: why its records cannot be read; None where they can.
        slurm: SLURM's state of it in SLURM's word; None where that is not known.
        quiet: seconds since it wrote something; None before it did.
    """
    signature: str
    argv: tp.Optional[list[str]] = None
    cfg: Config = dataclasses.field(default_factory=dict)
    history: list[Epoch] = dataclasses.field(default_factory=list)
    stages: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    machine: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    begun: bool = False
    fault: tp.Optional[str] = None
    slurm: tp.Optional[str] = None
    quiet: tp.Optional[float] = None

    @property
    def settings(self) -> dict[str, str]:
        """Overrides by name; the last one counts."""
        return dict(part.split("=", 1) for part in self.argv or [] if "=" in part)

    @property
    def stage_alone(self) -> tp.Optional[str]:
        """The stage that is all of this job, if it is one of `execute_only`."""
        stage = look(self.cfg, "execute_only") if self.argv is None else self.settings.get("execute_only")
        return None if stage in (None, "", "null") else str(stage).strip("\"'")

    @property
    def epochs(self) -> int:
        """Epochs of training behind it."""
        return sum("train" in epoch for epoch in self.history)

    @property
    def epochs_wanted(self) -> tp.Optional[int]:
        """Epochs that it is to train for; None where that is not known, or it does not train."""
        if self.stage_alone:
            return None
        wanted = self.settings.get("optim.epochs", look(self.cfg, "optim.epochs"))
        return int(wanted) if re.fullmatch(r"\d+", str(wanted)) else None

    @property
    def status(self) -> str:
        """`finished`, `half` (begun, or stopped on the way), `missing` (never begun) or `broken` (see `fault`)."""
        if self.fault:
            return "broken"
        if self.stage_alone:
            done = self.stage_alone in self.stages or any(self.stage_alone in epoch for epoch in self.history)
        else:
            done = self.epochs_wanted is not None and self.epochs >= self.epochs_wanted
        return "finished" if done else "half" if self.begun else "missing"

    @property
    def state(self) -> str:
        """The same with what SLURM says of a job that is not finished; `unknown` where nobody can say whether it runs."""
        if self.status in ("finished", "broken"):
            return self.status
        if self.slurm and self.slurm != "UNKNOWN":
            return self.slurm.split()[0].lower()
        return "missing" if self.status == "missing" else "unknown"


def look(cfg: Config, path: str) -> tp.Any:
    """A value of a config by its dotted path. Plain references (`${optim.epochs}`) are followed; what else is not there,
    not set or made when a job runs is None.

    >>> look({"a": {"b": "${c}"}, "c": 3}, "a.b")
    3
    """
    value: tp.Any = cfg
    for _ in range(8):                                   # a loop of references ends
        for part in path.split("."):
            value = value.get(part) if isinstance(value, tp.Mapping) else None
        found = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if found is None:
            return None if isinstance(value, str) and (value == "???" or "${" in value) else value
        path, value = found[1], cfg
    return None


def read_job(folder: Path, argv: tp.Optional[list[str]] = None, cfg: tp.Optional[Config] = None,
             history: tp.Optional[list[Epoch]] = None, slurm: tp.Optional[str] = None) -> Job:
    """What is kept of the job in `folder`, which need not be there.

    Args:
        folder: Dora's, named by the signature.
        argv: overrides where they are known from elsewhere; else those that Dora kept.
        cfg: its config where it is known; else the one it ran with.
        history: take this part of its history.
        slurm: see `Job`.
    """
    faults: list[str] = []

    def read(name: str, empty: tp.Any) -> tp.Any:
        path = folder / name
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty
            if type(found) is not type(empty):
                raise ValueError(f"holds a {type(found).__name__}, not a {type(empty).__name__}")
            return found
        except (OSError, ValueError) as error:
            faults.append(f"{name}: {error}")
            return empty

    kept_argv = read(".argv.json", []) if argv is None else argv
    kept_history = read("history.json", [])
    for number, epoch in enumerate(kept_history, 1):
        if not isinstance(epoch, dict) or not all(isinstance(metrics, dict) for metrics in epoch.values()):
            faults.append(f"history.json: epoch {number} is not a table of stages")
            kept_history = kept_history[:number - 1]
            break
    if argv is None and any("train" in epoch for epoch in kept_history) and "execute_inplace=true" in kept_argv:
        kept_argv = [part for part in kept_argv if not part.startswith("execute_")]     # it was evaluated after its training
    stages = read(STAGES_FILE, {})
    if not all(isinstance(metrics, dict) for metrics in stages.values()):
        faults.append(f"{STAGES_FILE}: is not a table of stages")
        stages = {}
    written = [path for pattern in ("*.log.*", "history.json", STAGES_FILE) for path in folder.glob(pattern)]
    quiet = max(0.0, time.time() - max(path.stat().st_mtime for path in written)) if written else None
    fault = "; ".join(faults) or None
    machine = read(MACHINE_FILE, {})                    # nothing hangs on it
    return Job(folder.name, list(map(str, kept_argv)) or None, read_config(folder) if cfg is None else cfg,
               kept_history if history is None else history[:len(kept_history)], stages, machine,
               bool(written), fault, slurm, quiet)


def read_config(folder: Path) -> Config:
    """The config that Hydra kept of a job's last run; empty where there is none that can be read."""
    import yaml
    path = folder / ".hydra" / "config.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def span_of_time(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> span_of_time(5), span_of_time(200), span_of_time(9000), span_of_time(200000)
    ('5s', '3.3m', '2.5h', '2.3d')
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.0f}s"


def keep_stage(folder: Path, stage: str, metrics: tp.Mapping[str, tp.Any], epochs: int) -> None:
    """Note the metrics of a stage that was run alone.

    Args:
        folder: of the job.
        epochs: entries of its history by now; a later one with this stage is newer than this note.
    """
    path = folder / STAGES_FILE
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    plain = {name: float(value) for name, value in metrics.items()}
    write(path, {**known, stage: {**plain, "epochs": epochs}})


def keep_machine(folder: Path, made_with: tp.Mapping[str, tp.Any]) -> None:
    """Note where and with what a job runs."""
    write(folder / MACHINE_FILE, made_with)


def write(path: Path, content: tp.Mapping[str, tp.Any]) -> None:
    """Write JSON, whole or not at all."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)
