"""Find the jobs of a grid: those that it defines and those that Dora has recorded. Nothing is submitted."""
from __future__ import annotations

import json
import shutil
import types
import typing as tp

from .catalog import load_explorer
from .records import Config, Job, read_config, read_job
from .rows import natural_key

OVERRIDES_HINT = ('MAGNET_GRID_OVERRIDES="KEY=VALUE ..." adds settings to every job and thereby changes which jobs a grid '
                  "has; set it as it was set for `dora grid`")


class GridJobs(tp.NamedTuple):
    """The jobs of a grid in its order, and remarks for the reader."""
    jobs: list[Job]
    notes: list[str]


class _Recorder:
    """Replaces Dora's Shepherd under a launcher: composes jobs without scheduling any."""

    def __init__(self, main: tp.Any, known: tp.Mapping[tuple[str, ...], str]) -> None:
        self.main, self.known = main, known

    def get_sheep_from_argv(self, argv: tp.Sequence[str]) -> tp.Any:
        from dora.hydra import _simplify_argv
        words = _simplify_argv(argv)
        if tuple(words) in self.known:                     # composing a config takes half a second
            return types.SimpleNamespace(xp=types.SimpleNamespace(sig=self.known[tuple(words)], argv=words, cfg=None))
        return types.SimpleNamespace(xp=self.main.get_xp(argv))


def defined_jobs(main: tp.Any, name: str, known: tp.Mapping[tuple[str, ...], str]) -> dict[str, tuple[list[str], Config]]:
    """Return signature -> (overrides, config) of the jobs that the grid defines now; known jobs have an empty config.

    Args:
        main: Dora's decorated main function.
        name: Name of the grid, as `dora grid` takes it.
        known: overrides -> signature of jobs that need not be composed.
    Raises:
        ValueError: There is no such grid, or a job has invalid settings.
    """
    from dora.explore import Herd, Launcher
    herd = Herd()
    try:
        load_explorer(name)(Launcher(tp.cast(tp.Any, _Recorder(main, known)), main.get_slurm_config(), herd))
    except Exception as error:
        if not type(error).__module__.startswith(("omegaconf", "hydra")):
            raise
        raise ValueError(f"the jobs of {name} cannot be composed: {error}. {OVERRIDES_HINT}") from error
    return {signature: (list(sheep.xp.argv), plain_config(sheep.xp.cfg)) for signature, sheep in herd.sheeps.items()}


def plain_config(cfg: tp.Any) -> Config:
    """Convert a config to plain containers, keeping interpolations unresolved; None becomes empty."""
    if cfg is None:
        return {}
    from omegaconf import OmegaConf
    return tp.cast(Config, OmegaConf.to_container(cfg, resolve=False))


def recorded_jobs(main: tp.Any, name: str) -> dict[str, list[str]]:
    """Return signature -> overrides of the jobs of the last `dora grid NAME`; overrides are empty if unreadable."""
    folder = main.dora.dir / main.dora._grids / name
    found = {}
    for signature in sorted(link.name for link in folder.iterdir()) if folder.is_dir() else ():
        try:
            found[signature] = list(json.loads((folder / signature / ".argv.json").read_text()))
        except (OSError, ValueError, TypeError):
            found[signature] = []
    return found


def find_jobs(main: tp.Any, name: str) -> GridJobs:
    """Find the jobs of a grid and read everything stored about them.

    They are the jobs that the grid defines now and those of the last `dora grid NAME`. If the two sets have nothing in
    common, the grid or the environment has changed since, and only the latter are returned.

    Raises:
        ValueError: See `defined_jobs`; a grid with recorded jobs may be impossible to compose now.
    """
    recorded, notes = recorded_jobs(main, name), []
    folders = main.dora.dir / main.dora.xps
    try:
        defined = defined_jobs(main, name, {tuple(argv): signature for signature, argv in recorded.items()
                                            if argv and read_config(folders / signature)})
    except ValueError as error:
        if not recorded:
            raise
        defined = {}
        notes.append(f"The jobs are those of the last `dora grid {name}`: {error}")
    if recorded and defined and not recorded.keys() & defined.keys():
        notes.append(f"The jobs are those of the last `dora grid {name}`. The grid defines other jobs now, because it or "
                     f"the environment was changed. {OVERRIDES_HINT}.")
        defined = {}
    elif defined and recorded.keys() - defined.keys():
        notes.append(f"Some of the jobs belong to the last `dora grid {name}` and are no longer in the grid.")
    others = sorted(recorded.keys() - defined.keys(), key=lambda signature: natural_key(" ".join(recorded[signature])))
    jobs = []
    for signature in [*defined, *others]:
        argv, cfg = defined.get(signature, (None, {}))
        jobs.append(read_job(folders / signature, argv, cfg or None, slurm_state=get_slurm_state(main, signature)))
    if jobs and all(job.status == "missing" for job in jobs):
        notes.append(f"No job has started yet, according to {main.dora.dir}. {OVERRIDES_HINT}.")
    return GridJobs(jobs, notes)


def get_slurm_state(main: tp.Any, signature: str) -> tp.Optional[str]:
    """Return the state of a job in SLURM's accounting; None without accounting or if it was never submitted."""
    if shutil.which("sacct") is None:
        return None
    from dora.shep import Sheep
    from dora.xp import XP
    try:
        return Sheep(XP(dora=main.dora, cfg=None, argv=[], sig=signature)).state()
    except Exception as error:                             # e.g. a truncated pickle, or one of another version
        return f"UNKNOWN ({type(error).__name__})"
