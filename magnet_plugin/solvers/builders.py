"""Build the solver that a config names."""
import typing as tp

from omegaconf import DictConfig, OmegaConf

from ..data.token_cache import cache_tokens
from .hybrid_magnet import HybridMagnetSolver
from .magnet import AudioMagnetSolver, MagnetSolver

#: `solver` in a config -> class.
SOLVERS: dict[str, type[MagnetSolver]] = {"magnet": MagnetSolver, "audio_magnet": AudioMagnetSolver,
                                          "hybrid_magnet": HybridMagnetSolver}


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
