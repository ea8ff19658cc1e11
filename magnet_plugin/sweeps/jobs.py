"""The jobs of a grid: those that it defines and those that Dora was asked for. Nothing is submitted."""
from __future__ import annotations

import importlib
import json
import shutil
import types
import typing as tp
from pathlib import Path

from .. import environment
from .records import Config, Job, read_config, read_job
from .rows import natural

HINT = 'MAGNET_GRID_OVERRIDES="KEY=VALUE …" gives a setting to every job of a grid, and belongs to what the jobs are.'


class Found(tp.NamedTuple):
    """Jobs in the order of their grid, and what a reader has to know of them."""
    jobs: list[Job]
    notes: list[str]


def grid_names() -> list[str]:
    """What `dora grid` takes."""
    package = importlib.import_module(environment.grids_package())
    root = Path(tp.cast(str, package.__file__)).parent
    return sorted(".".join(path.relative_to(root).with_suffix("").parts) for path in root.rglob("*.py")
                  if not any(part.startswith("_") for part in path.relative_to(root).parts))


def check_name(name: str) -> None:
    """Hold that there is such a grid.

    Raises:
        ValueError: there is none; it names those that there are.
    """
    names = grid_names()
    if name not in names:
        raise ValueError(f"there is no grid {name}; there are {', '.join(names)}")


class _Recorder:
    """In the place of Dora's Shepherd under a launcher: notes jobs, schedules none."""

    def __init__(self, main: tp.Any, known: tp.Mapping[tuple[str, ...], str]) -> None:
        self.main, self.known = main, known

    def get_sheep_from_argv(self, argv: tp.Sequence[str]) -> tp.Any:
        from dora.hydra import _simplify_argv
        words = _simplify_argv(argv)
        if tuple(words) in self.known:                     # composing a config takes half a second
            return types.SimpleNamespace(xp=types.SimpleNamespace(sig=self.known[tuple(words)], argv=words, cfg=None))
        return types.SimpleNamespace(xp=self.main.get_xp(argv))


def defined(main: tp.Any, name: str, known: tp.Mapping[tuple[str, ...], str]) -> dict[str, tuple[list[str], Config]]:
    """Signature -> overrides and config (empty for known jobs) of what the grid would ask for now.

    Args:
        main: Dora's.
        name: of the grid, as `dora grid` takes it.
        known: overrides -> signature, of jobs whose signature need not be found out.
    Raises:
        ValueError: it is no grid, or its jobs cannot be composed as the environment is.
    """
    from dora.explore import Explorer, Herd, Launcher
    explorer = getattr(importlib.import_module(f"{environment.grids_package()}.{name}"), "explorer", None)
    if not isinstance(explorer, Explorer):
        raise ValueError(f"{name} is no grid: it has no `explorer`; there are {', '.join(grid_names())}")
    herd = Herd()
    try:
        explorer(Launcher(tp.cast(tp.Any, _Recorder(main, known)), main.get_slurm_config(), herd))
    except Exception as error:
        if not type(error).__module__.startswith(("omegaconf", "hydra")):
            raise
        raise ValueError(f"the jobs of {name} cannot be composed: {error}. {HINT}") from error
    found = {}
    for signature, sheep in herd.sheeps.items():
        found[signature] = (list(sheep.xp.argv), plain(sheep.xp.cfg))
    return found


def plain(cfg: tp.Any) -> Config:
    """A config as plain values, references as written."""
    if cfg is None:
        return {}
    from omegaconf import OmegaConf
    return tp.cast(Config, OmegaConf.to_container(cfg, resolve=False))


def submitted(main: tp.Any, name: str) -> dict[str, list[str]]:
    """Signature -> overrides (empty where they are not known) of what Dora was last asked for by this grid."""
    folder = main.dora.dir / main.dora._grids / name
    found = {}
    for signature in sorted(link.name for link in folder.iterdir()) if folder.is_dir() else ():
        try:
            found[signature] = list(json.loads((folder / signature / ".argv.json").read_text()))
        except (OSError, ValueError, TypeError):
            found[signature] = []
    return found


def find_jobs(main: tp.Any, name: str) -> Found:
    """The jobs of a grid with all that is kept of them.

    They are those that the grid defines now, and those that `dora grid` was last asked for. Where the two have nothing in
    common, the grid or the environment has changed since, and the latter count alone.

    Raises:
        ValueError: see `defined`; a grid that cannot be composed is no error where Dora was asked for it before.
    """
    asked, notes = submitted(main, name), []
    folders = main.dora.dir / main.dora.xps
    try:
        wanted = defined(main, name, {tuple(argv): signature for signature, argv in asked.items()
                                      if argv and read_config(folders / signature)})
    except ValueError as error:
        if not asked:
            raise
        wanted = {}
        notes.append(f"The jobs are those of the last `dora grid {name}`; {error}")
    if asked and wanted and not asked.keys() & wanted.keys():
        notes.append(f"The jobs are those of the last `dora grid {name}`. The grid would ask for others now: it was changed "
                     f"since, or the environment was. {HINT}")
        wanted = {}
    elif wanted and asked.keys() - wanted.keys():
        notes.append("Some of the jobs are of the last `dora grid` and no longer in the grid.")
    order = [*wanted, *sorted(asked.keys() - wanted.keys(), key=lambda signature: natural(" ".join(asked[signature])))]
    jobs = []
    for signature in order:
        argv, cfg = wanted.get(signature, (None, {}))
        jobs.append(read_job(folders / signature, argv, cfg or None, slurm=slurm_state(main, signature)))
    if jobs and all(job.status == "missing" for job in jobs):
        notes.append(f"None of the jobs has begun, as far as {main.dora.dir} knows. {HINT}")
    return Found(jobs, notes)


def slurm_state(main: tp.Any, signature: str) -> tp.Optional[str]:
    """What SLURM's accounting says of a job, in its word; None for a job that was not submitted or without accounting."""
    if shutil.which("sacct") is None:
        return None
    from dora.shep import Sheep
    from dora.xp import XP
    try:
        return Sheep(XP(dora=main.dora, cfg=None, argv=[], sig=signature)).state()
    except Exception as error:                             # a pickle of another version, and whatever else lies there
        return f"UNKNOWN ({type(error).__name__})"
