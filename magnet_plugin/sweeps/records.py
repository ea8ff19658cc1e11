"""Read and write what is stored about one job: overrides, config, history, progress. Uses plain files only."""
from __future__ import annotations

import dataclasses
import json
import re
import time
import typing as tp
from pathlib import Path

from ..environment import atomic_write

Epoch = dict[str, dict[str, float]]          # stage -> metric -> value, as in Dora's history.json
Config = tp.Mapping[str, tp.Any]

#: Next to history.json: metrics of stages run with `execute_only`. Dora does not store those of a stage run in place, and a
#: second stage run under the same signature would overwrite the history of the first.
STAGES_FILE = "stages.json"
#: Next to history.json: machine and versions of the job's last run, from `metrics.machine.made_with`.
MACHINE_FILE = "machine.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """One job of a grid.

    Args:
        signature: Dora's signature.
        argv: Overrides; None if they were not stored.
        cfg: Config with unresolved interpolations; empty if unknown.
        history: One entry per epoch, or one entry for a stage that was run by itself.
        stages: stage -> metrics of stages run by themselves; see `STAGES_FILE`.
        machine: See `MACHINE_FILE`.
        started: Whether it has written a log or a history.
        fault: Why its files cannot be read; None if they can.
        slurm_state: SLURM's own word for its state; None if unknown.
        idle: Seconds since it last wrote a file; None if it never did.
    """
    signature: str
    argv: tp.Optional[list[str]] = None
    cfg: Config = dataclasses.field(default_factory=dict)
    history: list[Epoch] = dataclasses.field(default_factory=list)
    stages: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    machine: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    started: bool = False
    fault: tp.Optional[str] = None
    slurm_state: tp.Optional[str] = None
    idle: tp.Optional[float] = None

    @property
    def settings(self) -> dict[str, str]:
        """Overrides by name; the last one of a name counts."""
        return dict(part.split("=", 1) for part in self.argv or [] if "=" in part)

    @property
    def single_stage(self) -> tp.Optional[str]:
        """The stage that `execute_only` restricts this job to; None if it trains."""
        stage = get_value(self.cfg, "execute_only") if self.argv is None else self.settings.get("execute_only")
        return None if stage in (None, "", "null") else str(stage).strip("\"'")

    @property
    def epochs(self) -> int:
        """Number of completed training epochs."""
        return sum("train" in epoch for epoch in self.history)

    @property
    def epochs_wanted(self) -> tp.Optional[int]:
        """Number of epochs it is to train for; None if unknown or if it does not train."""
        if self.single_stage:
            return None
        wanted = self.settings.get("optim.epochs", get_value(self.cfg, "optim.epochs"))
        return int(wanted) if re.fullmatch(r"\d+", str(wanted)) else None

    @property
    def status(self) -> str:
        """`finished`, `incomplete` (running or stopped), `missing` (never started) or `broken` (see `fault`)."""
        if self.fault:
            return "broken"
        if self.single_stage:
            done = self.single_stage in self.stages or any(self.single_stage in epoch for epoch in self.history)
        else:
            done = self.epochs_wanted is not None and self.epochs >= self.epochs_wanted
        return "finished" if done else "incomplete" if self.started else "missing"

    @property
    def state(self) -> str:
        """The status, with SLURM's state for a job that is not finished; `unknown` if it may or may not be running."""
        if self.status in ("finished", "broken"):
            return self.status
        if self.slurm_state and self.slurm_state != "UNKNOWN":
            return self.slurm_state.split()[0].lower()
        return "missing" if self.status == "missing" else "unknown"


def get_value(cfg: Config, path: str) -> tp.Any:
    """Return a value of a config by its dotted path, following plain references such as `${optim.epochs}`.

    Returns:
        None for a path that does not exist, `???`, and interpolations that are resolved when a job runs.

    >>> get_value({"a": {"b": "${c}"}, "c": 3}, "a.b")
    3
    """
    value: tp.Any = cfg
    for _ in range(8):                                   # ends circular references
        for part in path.split("."):
            value = value.get(part) if isinstance(value, tp.Mapping) else None
        found = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if found is None:
            return None if isinstance(value, str) and (value == "???" or "${" in value) else value
        path, value = found[1], cfg
    return None


def read_job(folder: Path, argv: tp.Optional[list[str]] = None, cfg: tp.Optional[Config] = None,
             history: tp.Optional[list[Epoch]] = None, slurm_state: tp.Optional[str] = None) -> Job:
    """Read everything stored about the job in `folder`, which need not exist.

    Args:
        folder: Dora's folder of the job, named by its signature.
        argv: Overrides, if known; by default those that Dora stored.
        cfg: Config, if known; by default that of the last run.
        history: Use this part of the history, e.g. its first epochs.
        slurm_state: See `Job`.
    """
    faults: list[str] = []

    def read(name: str, empty: tp.Any) -> tp.Any:
        path = folder / name
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty
            if type(found) is not type(empty):
                raise ValueError(f"contains a {type(found).__name__} instead of a {type(empty).__name__}")
            return found
        except (OSError, ValueError) as error:
            faults.append(f"{name}: {error}")
            return empty

    stored_argv = read(".argv.json", []) if argv is None else argv
    stored_history = read("history.json", [])
    for number, epoch in enumerate(stored_history, 1):
        if not isinstance(epoch, dict) or not all(isinstance(metrics, dict) for metrics in epoch.values()):
            faults.append(f"history.json: epoch {number} is not a dict of stages")
            stored_history = stored_history[:number - 1]
            break
    if argv is None and any("train" in epoch for epoch in stored_history) and "execute_inplace=true" in stored_argv:
        stored_argv = [part for part in stored_argv if not part.startswith("execute_")]     # evaluated after its training
    stages = read(STAGES_FILE, {})
    if not all(isinstance(metrics, dict) for metrics in stages.values()):
        faults.append(f"{STAGES_FILE}: not a dict of stages")
        stages = {}
    written = [path for pattern in ("*.log.*", "history.json", STAGES_FILE) for path in folder.glob(pattern)]
    idle = max(0.0, time.time() - max(path.stat().st_mtime for path in written)) if written else None
    fault = "; ".join(faults) or None
    machine = read(MACHINE_FILE, {})                    # after `fault`: a job without it is not broken
    return Job(folder.name, list(map(str, stored_argv)) or None, read_config(folder) if cfg is None else cfg,
               stored_history if history is None else history[:len(stored_history)], stages, machine,
               bool(written), fault, slurm_state, idle)


def read_config(folder: Path) -> Config:
    """Read the config that Hydra stored at a job's last run; empty if there is none or it cannot be read."""
    import yaml
    path = folder / ".hydra" / "config.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def format_duration(seconds: float) -> str:
    """Format a duration in its largest unit.

    >>> format_duration(5), format_duration(200), format_duration(9000), format_duration(200000)
    ('5s', '3.3m', '2.5h', '2.3d')
    """
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.0f}s"


def save_stage(folder: Path, stage: str, metrics: tp.Mapping[str, tp.Any], epochs: int) -> None:
    """Store the metrics of a stage that was run by itself, next to those of other stages.

    Args:
        folder: Folder of the job.
        stage: Name of the stage.
        metrics: Its metrics.
        epochs: Current length of the job's history. Metrics of this stage in a later epoch take precedence.
    """
    path = folder / STAGES_FILE
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    values = {name: float(value) for name, value in metrics.items()}
    write_json(path, {**known, stage: {**values, "epochs": epochs}})


def save_machine(folder: Path, made_with: tp.Mapping[str, tp.Any]) -> None:
    """Store the machine and the versions that a job runs with."""
    write_json(folder / MACHINE_FILE, made_with)


def write_json(path: Path, content: tp.Mapping[str, tp.Any]) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
