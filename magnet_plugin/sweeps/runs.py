"""The runs in Dora's folder, found by the names that users gave them with `label=NAME`. Reads plain files only."""
from __future__ import annotations

import dataclasses
import json
import os
import shlex
import typing as tp
from pathlib import Path

from .. import environment
from .holding import is_held
from .records import Job, format_duration, get_value, read_job

#: Written by a run that was stopped within an epoch; see solvers/preemption.py.
STOPPED_WITHIN_EPOCH = "preempted.th"
STATES = ("running", "finished", "stopped", "not started", "broken")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: its label, or the signature.
        signature: Dora's signature.
        solver: as given on the command line, such as `magnet/finetune`.
        state: one of `STATES`.
        epoch, epochs: number of completed epochs, and of those wanted (None if unknown).
        losses: stage -> cross entropy of the last epoch, in nats per token.
        idle: seconds since it last wrote a file; None if it never did.
        command: starts, or goes on with, the run.
        note: what else is to be known; empty if nothing.
    """
    name: str
    signature: str
    solver: str
    state: str
    epoch: int
    epochs: tp.Optional[int]
    losses: dict[str, float]
    idle: tp.Optional[float]
    command: str
    note: str = ""

    @property
    def line(self) -> str:
        """One line for messages.

        >>> Run("mine", "0a1b2c3d", "magnet", "stopped", 2, 15, {}, 7300.0, "").line
        '0a1b2c3d (stopped, epoch 2 of 15, 2.0h ago)'
        """
        age = "" if self.idle is None else f", {format_duration(self.idle)} ago"
        return f"{self.signature} ({self.state}, epoch {self.epoch} of {self.epochs or '?'}{age})"


def find_runs(folder: tp.Optional[Path] = None) -> list[Run]:
    """Read all runs in Dora's folder, the one that wrote last first.

    Args:
        folder: Dora's folder; by default that of this machine.
    """
    xps = (folder or environment.dora_dir()) / "xps"
    found = [read_run(path) for path in sorted(xps.iterdir()) if path.is_dir()] if xps.is_dir() else []
    return sorted(found, key=lambda run: float("inf") if run.idle is None else run.idle)


def read_run(folder: Path) -> Run:
    """Read what is stored about the run in `folder`."""
    job = read_job(folder)
    last = job.history[-1] if job.history else {}
    losses = {stage: last[stage]["ce"] for stage in ("train", "valid") if "ce" in last.get(stage, {})}
    return Run(label_of(job) or folder.name, folder.name, job.settings.get("solver", str(job.cfg.get("solver", "?"))),
               state_of(folder, job), job.epochs, job.epochs_wanted, losses, job.idle, local_command(job.argv or []),
               note_of(folder, job))


def label_of(job: Job) -> tp.Optional[str]:
    """Return the label of a run, from its settings or the config of its last start."""
    value = job.settings.get("label", get_value(job.cfg, "label"))
    return None if value in (None, "", "null") else str(value).strip("\"'")


def state_of(folder: Path, job: Job) -> str:
    """Tell the state of a run on this machine."""
    if is_held(folder):
        return "running"
    return {"incomplete": "stopped", "missing": "not started"}.get(job.status, job.status)


def note_of(folder: Path, job: Job) -> str:
    """Say what else there is to know about a run."""
    if job.fault:
        return job.fault
    if job.single_stage:
        return f"runs only the stage {job.single_stage}"
    if (folder / STOPPED_WITHIN_EPOCH).exists():
        return f"stopped within epoch {job.epochs + 1}, and goes on there"
    return ""


def local_command(argv: tp.Sequence[str], distributed: bool = False, package: str = environment.PACKAGE.name) -> str:
    """Return the shell command that runs a job on this machine, from the current directory.

    Args:
        argv: overrides.
        distributed: use all GPUs of this machine.
        package: what Dora imports if the current directory is not a checkout.
    """
    in_checkout = (Path(package) / "train.py").exists() and not os.environ.get("DORA_PACKAGE")
    return shlex.join(["dora", *([] if in_checkout else ["-P", package]), "run", *(["-d"] if distributed else []), *argv])


def find_run(name: str, folder: tp.Optional[Path] = None) -> Run:
    """Find the run with this label or signature.

    Raises:
        ValueError: there is none, or several; the message lists them.
    """
    runs = find_runs(folder)
    found = [run for run in runs if run.signature == name] or [run for run in runs if run.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{len(found)} runs are called {name!r}; give the signature of one: "
                         + "; ".join(run.line for run in found))
    known = list(dict.fromkeys(run.name for run in runs))
    raise ValueError(f"no run is called {name!r} in {folder or environment.dora_dir()}; "
                     + (f"known are: {', '.join(known[:20])}" if known else "there are no runs yet"))


def resolve_name(name: str) -> str:
    """Return the source that a run's label or signature stands for, `//sig/SIGNATURE`; any other name as it is.

    A run comes before a file of the same name, which `./NAME` names.

    Raises:
        ValueError: several runs have this label, or there is neither a run nor a file of this name.
    """
    if "/" in name:
        return name
    if Path(name).exists() and not any(name in (run.name, run.signature) for run in find_runs()):
        return name
    try:
        return f"//sig/{find_run(name).signature}"
    except ValueError as error:
        raise ValueError(str(error) if Path(name).exists() else f"{error}; nor is there a file or folder {name}") from None


def check_trained(source: str, folder: Path) -> None:
    """Check that the run that `continue_from` names has a checkpoint, if it names one.

    Args:
        source: value of `continue_from`.
        folder: Dora's folder.
    Raises:
        ValueError: it has none; the message gives the command that trains it.
    """
    xp = folder / "xps" / source.removeprefix("//sig/")
    if not source.startswith("//sig/") or (xp / "checkpoint.th").exists():
        return
    if not xp.is_dir():
        raise ValueError(f"continue_from={source}: there is no such run in {folder}; `magnet runs` lists those that exist")
    raise ValueError(f"continue_from={source}: this model is not trained yet. Run this job first, until its first epoch is "
                     f"complete: {read_run(xp).command}")


def as_json(runs: tp.Sequence[Run]) -> str:
    """Format runs as JSON."""
    return json.dumps([dataclasses.asdict(run) for run in runs], indent=1, ensure_ascii=False)
