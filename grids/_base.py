"""Building blocks of grids. A grid lists its jobs by their difference from the settings of a scale (`_scales.py`).

A module `grids/magnet/NAME.py` defines its jobs once, in `grid(scale)`. `dora grid magnet.NAME` runs them at the paper's
scale, `dora grid magnet.tiny.NAME` on two CPU cores. Two environment variables change any grid:

- MAGNET_GRID_OVERRIDES adds settings to every job:
  `MAGNET_GRID_OVERRIDES="datasource.train=egs/mine/egs/train optim.epochs=10"`.
- MAGNET_GRID_PARENT names an existing model to evaluate instead of training one first: a Dora signature,
  `//pretrained/NAME`, `//bundled/NAME`, a checkpoint or a release folder.
"""
import contextlib
import os
import shlex
import typing as tp

from dora import Explorer, Launcher

from magnet_plugin.sweeps.slurm_config import from_environment

from ._explorers import EvalExplorer, TrainExplorer
from ._scales import ADAMW, PAPER, TINY, Job, Scale

__all__ = ["ADAMW", "PAPER", "TINY", "Job", "Scale", "decoding_grid", "evaluation_grid", "training_grid"]


def with_requests(launcher: Launcher, requests: tp.Mapping[str, tp.Any]) -> Launcher:
    """Return a launcher that requests `requests` from SLURM, except fields set by the environment or the command line."""
    environment = from_environment()
    default = launcher._main.get_slurm_config()
    return launcher.slurm(**{name: value for name, value in requests.items()
                             if name not in environment and getattr(launcher._slurm, name) == getattr(default, name)})


def arguments(launcher: Launcher, job: Job) -> list[str]:
    """Return the overrides of a job, those of MAGNET_GRID_OVERRIDES last."""
    return launcher.bind(dict(job), shlex.split(os.environ.get("MAGNET_GRID_OVERRIDES", "")))._argv


def schedule(launcher: Launcher, jobs: tp.Sequence[Job]) -> None:
    """Schedule jobs; two or more form one SLURM array."""
    with launcher.job_array() if len(jobs) > 1 else contextlib.nullcontext():
        for job in jobs:
            launcher(arguments(launcher, job))


def training_grid(scale: Scale, **jobs: tp.Sequence[Job]) -> Explorer:
    """Train one model per job. `small=` and `medium=` jobs form separate arrays with their own SLURM requests."""
    def explore(launcher: Launcher) -> None:
        for size, members in jobs.items():
            schedule(with_requests(launcher, scale.slurm[size]), members)
    return TrainExplorer(explore)


def evaluation_grid(scale: Scale, jobs: tp.Sequence[Job]) -> Explorer:
    """Evaluate released models; each job names its model in `continue_from`."""
    def explore(launcher: Launcher) -> None:
        schedule(with_requests(launcher, scale.slurm["evaluate"]),
                 [{**job, **scale.evaluation, "execute_only": "evaluate"} for job in jobs])
    return EvalExplorer(explore)


def decoding_grid(scale: Scale, parent: Job, jobs: tp.Sequence[Job]) -> Explorer:
    """Train one model (`parent`), then evaluate it with the decoding settings of each job, which waits for the training."""
    def explore(launcher: Launcher) -> None:
        source = os.environ.get("MAGNET_GRID_PARENT", "")
        if not source:
            schedule(with_requests(launcher, scale.slurm["small"]), [parent])
            source = launcher._main.get_xp(arguments(launcher, parent)).sig
        shared = {**parent, **scale.evaluation, "execute_only": "evaluate",
                  "continue_from": source if "/" in source else f"//sig/{source}"}
        schedule(with_requests(launcher, scale.slurm["evaluate"]), [{**shared, **job} for job in jobs])
    return EvalExplorer(explore)
