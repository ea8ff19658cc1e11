"""How a grid is written: jobs that know only their difference from a scale's settings (see `_scales.py`).

A module defines its jobs once, `grid(scale)`; `grids/magnet/NAME.py` runs them at the paper's scale,
`grids/magnet/tiny/NAME.py` on two CPU cores. Two variables change any grid:

- MAGNET_GRID_OVERRIDES adds settings to every job, as in
  `MAGNET_GRID_OVERRIDES="datasource.train=egs/mine/egs/train optim.epochs=10"`;
- MAGNET_GRID_PARENT names the model whose decoding is swept, instead of one that is trained first: a Dora signature,
  `//pretrained/NAME`, `//bundled/NAME`, a checkpoint or a release folder.
"""
import contextlib
import os
import shlex
import typing as tp

from dora import Explorer, Launcher

from magnet_plugin.sweeps import slurm

from ._explorers import EvalExplorer, TrainExplorer
from ._scales import ADAMW, PAPER, TINY, Job, Scale

__all__ = ["ADAMW", "PAPER", "TINY", "Job", "Scale", "decoding", "judging", "training"]


def prepare(launcher: Launcher, needs: tp.Mapping[str, tp.Any]) -> Launcher:
    """A launcher whose jobs ask SLURM for `needs`, where neither the command line nor the environment says otherwise."""
    asked = slurm.from_environment()
    default = launcher._main.get_slurm_config()
    needs = {name: value for name, value in needs.items()
             if name not in asked and getattr(launcher._slurm, name) == getattr(default, name)}
    return launcher.slurm(**needs)


def arguments(launcher: Launcher, job: Job) -> list[str]:
    """What a job is run with; MAGNET_GRID_OVERRIDES are the last words."""
    return launcher.bind(dict(job), shlex.split(os.environ.get("MAGNET_GRID_OVERRIDES", "")))._argv


def schedule(launcher: Launcher, jobs: tp.Sequence[Job]) -> None:
    """Schedule jobs, several as one array."""
    with launcher.job_array() if len(jobs) > 1 else contextlib.nullcontext():
        for job in jobs:
            launcher(arguments(launcher, job))


def training(scale: Scale, **jobs: tp.Sequence[Job]) -> Explorer:
    """A grid that trains one model per job. `small` and `medium` jobs are arrays of their own and ask for other machines."""
    def explore(launcher: Launcher) -> None:
        for size, some in jobs.items():
            schedule(prepare(launcher, scale.slurm[size]), some)
    return TrainExplorer(explore)


def judging(scale: Scale, jobs: tp.Sequence[Job]) -> Explorer:
    """A grid that evaluates released models; a job names its model in `continue_from`."""
    def explore(launcher: Launcher) -> None:
        schedule(prepare(launcher, scale.slurm["judge"]),
                 [{**job, **scale.judged, "execute_only": "evaluate"} for job in jobs])
    return EvalExplorer(explore)


def decoding(scale: Scale, parent: Job, jobs: tp.Sequence[Job]) -> Explorer:
    """A grid that evaluates one model, decoded in many ways. It is trained first; the other jobs wait for it."""
    def explore(launcher: Launcher) -> None:
        source = os.environ.get("MAGNET_GRID_PARENT", "")
        if not source:
            schedule(prepare(launcher, scale.slurm["small"]), [parent])
            source = launcher._main.get_xp(arguments(launcher, parent)).sig
        shared = {**parent, **scale.judged, "execute_only": "evaluate",
                  "continue_from": source if "/" in source else f"//sig/{source}"}
        schedule(prepare(launcher, scale.slurm["judge"]), [{**shared, **job} for job in jobs])
    return EvalExplorer(explore)
