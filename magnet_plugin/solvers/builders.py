"""Build the solver that a config names."""
import typing as tp

import torch
from audiocraft.utils.utils import dict_from_config
from omegaconf import DictConfig, OmegaConf

from ..data.token_cache import cache_tokens
from ..modules.spectral_loss import SpectralLoss
from .hybrid_magnet import HybridMagnetSolver
from .magnet import AudioMagnetSolver, MagnetSolver

#: `solver` in a config -> class.
SOLVERS: dict[str, type[MagnetSolver]] = {"magnet": MagnetSolver, "audio_magnet": AudioMagnetSolver,
                                          "hybrid_magnet": HybridMagnetSolver}


def get_loss(name: str, cfg: DictConfig, fallback: tp.Callable[[str, DictConfig], torch.nn.Module]) -> torch.nn.Module:
    """Build a loss of AudioCraft's compression solver; `spectral` is the plugin's.

    Args:
        name: key of `cfg.losses`, and of its settings in `cfg`.
        cfg: config of an experiment.
        fallback: builds any other loss.
    """
    return SpectralLoss(**dict_from_config(cfg.spectral)) if name == "spectral" else fallback(name, cfg)


def get_solver(cfg: DictConfig, fallback: tp.Callable[[DictConfig], tp.Any]) -> tp.Any:
    """Build the solver of a config. With `cache.tokens`, its codec reads and writes cached tokens.

    Args:
        cfg: config of an experiment.
        fallback: builds the solver if `cfg.solver` is not one of `SOLVERS`.
    """
    klass = SOLVERS.get(cfg.solver)
    solver = fallback(cfg) if klass is None else klass(cfg)
    folder = OmegaConf.select(cfg, "cache.tokens")
    if folder:
        cache_tokens(solver.compression_model, folder)
    return solver
