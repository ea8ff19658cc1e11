"""Mixin for `fsdp.use=true`: sharded weights, optimizer state and checkpoints (see `distributed/fsdp.py`).

Each rank saves its shards to a file of its own (`checkpoint.th`, `checkpoint.th.1`, ...). The file of rank 0 also holds the
whole best weights (`fsdp_best_state`), from which any number of ranks, or one process without FSDP, can start.
"""
import re
import typing as tp

import flashy
import torch
from audiocraft.solvers.base import StandardSolver
from omegaconf import DictConfig

from ..distributed import fsdp
from ..models import builders


class ShardedSolver(StandardSolver):
    """Solver mixin that shards the model. Without FSDP it changes nothing.

    Raises:
        ValueError: `fsdp.use=true` is combined with a setting that it does not support.
    """
    _sharded: tp.Optional[fsdp.ShardedState] = None
    optimizer: torch.optim.Optimizer

    def __init__(self, cfg: DictConfig) -> None:
        builders.get_sharding(cfg)                              # validates the settings before anything is built
        super().__init__(cfg)

    def wrap_with_fsdp(self, model: torch.nn.Module, *args: tp.Any, **kwargs: tp.Any) -> torch.nn.Module:
        sharding = builders.get_sharding(self.cfg)
        assert sharding is not None
        fsdp.shard(model, sharding, self.device)
        self._sharded = fsdp.ShardedState(model)
        return model

    def register_ema(self, *args: str) -> None:
        super().register_ema(*args)
        if self._sharded is not None:
            self._ema_sources["model"] = self._sharded

    def register_stateful(self, *args: str, write_only: bool = False) -> None:
        for name in args:
            if self._sharded is not None and name == "model":
                self.stateful.register(name, self._sharded, write_only)
            elif self._sharded is not None and name == "optimizer":
                self.stateful.register(name, fsdp.ShardedOptimizerState(self.optimizer), write_only)
            else:
                super().register_stateful(name, write_only=write_only)

    def update_best_state_from_stage(self, stage_name: str = "valid") -> None:
        super().update_best_state_from_stage(stage_name)
        if self._sharded is not None and self._new_best_state:
            whole = self._sharded.whole(self.best_state.dtype)
            # Other ranks keep their shards here: loading accepts shards and whole weights alike.
            self.fsdp_best_state = {"model": whole or self.best_state.states["model"]}

    def load_checkpoints(self, load_best: bool = False, ignore_state_keys: tp.Sequence[str] = ()) -> tp.Optional[dict]:
        """Load the latest checkpoint.

        Raises:
            ValueError: the checkpoint was saved by another number of ranks.
        """
        if self.cfg.fsdp.use and self.checkpoint_path(use_fsdp=False).exists():
            saved = 1 + max((int(found[1]) for path in self.folder.glob("checkpoint.th.*")
                             if (found := re.fullmatch(r"checkpoint\.th\.(\d+)", path.name))), default=0)
            if saved != (world_size := flashy.distrib.world_size()):
                raise ValueError(f"{self.folder} holds the shards of {saved} ranks, but this run has {world_size}. Run with "
                                 f"{saved} ranks, or start a new run from the best weights with "
                                 f"continue_from=//sig/{self.xp.sig} label=NAME")
        return super().load_checkpoints(load_best, list(ignore_state_keys))
