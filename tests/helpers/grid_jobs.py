"""The jobs of the shipped grids, composed as `dora grid` composes them or, much faster, from cached compositions."""
import functools
import os
import types
import typing as tp

import pytest
from dora import XP
from dora.conf import SlurmConfig
from dora.explore import Herd, Launcher
from dora.hydra import _simplify_argv
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from magnet_plugin.sweeps import catalog, slurm_config
from magnet_plugin.train import main

DATA = " ".join(f"datasource.{split}=egs/{split}" for split in ("train", "valid", "evaluate", "generate"))
#: Package of grids -> MAGNET_GRID_OVERRIDES: the paper's scale has no data of its own.
SCALES = {"magnet": DATA, "magnet.tiny": ""}
NAMES = sorted(name.removeprefix("magnet.tiny.") for name in catalog.grid_names() if name.startswith("magnet.tiny."))


class Job(tp.NamedTuple):
    """What a grid schedules."""
    sig: str
    settings: dict[str, str]
    cfg: tp.Any
    slurm: SlurmConfig


@functools.cache
def compose_groups(groups: tuple[str, ...]) -> tp.Any:
    """The config with overrides of config groups only."""
    return main._get_config(list(groups))


class FastMain:
    """Dora's main function, except that only overrides of config groups are composed by Hydra.

    Overrides of values are parsed by Hydra and set in a copy, which still rejects unknown names. Several times faster than
    Dora's function; tests/integ/test_grid_composition.py checks that both agree.
    """

    def __getattr__(self, name: str) -> tp.Any:
        return getattr(main, name)

    def get_xp(self, argv: tp.Sequence[str]) -> XP:
        argv = _simplify_argv(argv)
        groups = tuple(arg for arg in argv if arg.split("=")[0] in main._config_groups)
        base = compose_groups(groups)
        cfg = base.copy()
        for override in OverridesParser.create().parse_overrides([arg for arg in argv if arg not in groups]):
            OmegaConf.update(cfg, override.key_or_group, override.value(), force_add=override.is_force_add())
        return XP(main.dora, cfg, argv, [*(tuple(arg.split("=", 1)) for arg in groups), *main._get_delta(base, cfg)])


class ComposingShepherd:
    """Takes the place of Dora's Shepherd, which writes folders and calls SLURM."""

    def __init__(self, dora_main: tp.Any) -> None:
        self.main = dora_main

    def get_sheep_from_argv(self, argv: tp.Sequence[str]) -> tp.Any:
        return types.SimpleNamespace(xp=self.main.get_xp(argv))


def explore(name: str, dora_main: tp.Any = None, **command_line: tp.Any) -> list[list[Job]]:
    """The jobs of a grid, array by array; `command_line` are fields of SlurmConfig."""
    herd = Herd()
    shepherd: tp.Any = ComposingShepherd(dora_main or FastMain())
    requests = slurm_config.slurm_settings(main.get_slurm_config().__dict__, command_line, environ={})
    catalog.load_explorer(name)(Launcher(shepherd, requests, herd))
    return [[Job(sig, dict(part.split("=", 1) for part in herd.sheeps[sig].xp.argv), herd.sheeps[sig].xp.cfg,
                 herd.slurm_configs[sig]) for sig in array] for array in herd.job_arrays]


@functools.cache
def jobs_of(scale: str, name: str, dora_main: tp.Any = None) -> list[list[Job]]:
    """The jobs of a grid at one of SCALES, without settings from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAGNET_GRID_OVERRIDES", SCALES[scale])
        patch.delenv("MAGNET_GRID_PARENT", raising=False)
        for variable in [name for name in os.environ if name.startswith(slurm_config.PREFIX)]:
            patch.delenv(variable)
        return explore(f"{scale}.{name}", dora_main)
