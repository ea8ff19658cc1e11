"""How a grid is written: jobs that know only their difference, and a scale to run them at.

A module names its jobs once, `jobs()`; `grids/magnet/NAME.py` runs them at the paper's scale, `grids/magnet/tiny/NAME.py`
on two CPU cores. MAGNET_GRID_OVERRIDES adds settings to every job of any grid, as in
`MAGNET_GRID_OVERRIDES="datasource.train=egs/mine/egs/train optim.epochs=10"`.
"""
import dataclasses
import os
import shlex
import typing as tp

from dora import Explorer, Launcher

from magnet_plugin import slurm

from ._explorers import TrainExplorer

Job = tp.Mapping[str, tp.Any]     # settings by name, as Dora's launcher takes them


@dataclasses.dataclass(frozen=True)
class Scale:
    """What the jobs of an ablation share.

    Args:
        settings: the base of every job.
        slurm: what a job needs, as fields of Dora's SlurmConfig.
    """
    settings: Job
    slurm: tp.Mapping[str, tp.Any]


#: The small model on segments of 10 seconds, as in the paper's ablations (section 5).
PAPER = Scale({"solver": "magnet/magnet_32khz", "dataset.segment_duration": 10, "dataset.batch_size": 192},
              {"gpus": 32})
#: 48 short clips rendered on first use, the bundled codec, a model of two layers; half a minute a job.
TINY = Scale({"solver": "magnet/debug", "num_threads": 1, "optim.updates_per_epoch": 20},
             {"gpus": 0, "cpus_per_gpu": 1, "mem_per_gpu": 2, "time": 20, "array_parallelism": 2})


def prepare(launcher: Launcher, scale: Scale) -> Launcher:
    """The launcher of a scale's jobs. What the command line or the environment asks SLURM for is stronger than the scale."""
    asked = slurm.from_environment()
    default = launcher._main.get_slurm_config()
    needs = {name: value for name, value in scale.slurm.items()
             if name not in asked and getattr(launcher._slurm, name) == getattr(default, name)}
    extra = shlex.split(os.environ.get("MAGNET_GRID_OVERRIDES", ""))
    return launcher.slurm(**needs).bind(dict(scale.settings), extra)


def training(scale: Scale, jobs: tp.Sequence[Job]) -> Explorer:
    """A grid that trains one model per job, as one array."""
    def explore(launcher: Launcher) -> None:
        launcher = prepare(launcher, scale)
        with launcher.job_array():
            for job in jobs:
                launcher(dict(job))
    return TrainExplorer(explore)
