"""ShardedSolver: what a solver does differently with `fsdp.use=true`, on top of sharding.py.

Each rank saves its shards in a file of its own (`checkpoint.th`, `checkpoint.th.1`, ...). The first rank's holds the best
weights whole besides (`fsdp_best_state`), from which any number of ranks, or one process without FSDP, can start.
"""
import re
import typing as tp

import flashy
import torch
from audiocraft.solvers.base import StandardSolver
from omegaconf import DictConfig

from ..distributed import fsdp as sharding
from ..models import builders


class ShardedSolver(StandardSolver):
    """Mixin of AudioCraft's solvers; without FSDP it does nothing.

    Raises:
        ValueError: `fsdp.use=true` beside a setting that does not go with it.
    """
    _shards: tp.Optional[sharding.Shards] = None
    optimizer: torch.optim.Optimizer

    def __init__(self, cfg: DictConfig) -> None:
        builders.get_sharding(cfg)                              # a bad setting is told before anything is built
        super().__init__(cfg)

    def wrap_with_fsdp(self, model: torch.nn.Module, *args: tp.Any, **kwargs: tp.Any) -> torch.nn.Module:
        how = builders.get_sharding(self.cfg)
        assert how is not None
        sharding.shard(model, how, self.device)
        self._shards = sharding.Shards(model)
        return model

    def register_ema(self, *args: str) -> None:
        super().register_ema(*args)
        if self._shards is not None:
            self._ema_sources["model"] = self._shards

    def register_stateful(self, *args: str, write_only: bool = False) -> None:
        for name in args:
            if self._shards is not None and name == "model":
                self.stateful.register(name, self._shards, write_only)
            elif self._shards is not None and name == "optimizer":
                self.stateful.register(name, sharding.OptimizerShards(self.optimizer), write_only)
            else:
                super().register_stateful(name, write_only=write_only)

    def update_best_state_from_stage(self, stage_name: str = "valid") -> None:
        super().update_best_state_from_stage(stage_name)
        if self._shards is not None and self._new_best_state:
            whole = self._shards.whole(self.best_state.dtype)
            # Other ranks keep their own shards: what fsdp_best_state is loaded from fits either way.
            self.fsdp_best_state = {"model": whole or self.best_state.states["model"]}

    def load_checkpoints(self, load_best: bool = False, ignore_state_keys: tp.Sequence[str] = ()) -> tp.Optional[dict]:
        if self.cfg.fsdp.use and self.checkpoint_path(use_fsdp=False).exists():
            saved = 1 + max((int(found[1]) for path in self.folder.glob("checkpoint.th.*")
                             if (found := re.fullmatch(r"checkpoint\.th\.(\d+)", path.name))), default=0)
            if saved != (world := flashy.distrib.world_size()):
                raise ValueError(f"{self.folder} holds the shards of {saved} ranks, and there are {world}: run with {saved} "
                                 f"or start from the best weights with continue_from=//sig/{self.xp.sig} label=NAME")
        return super().load_checkpoints(load_best, list(ignore_state_keys))
