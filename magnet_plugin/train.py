"""Dora's entry point: `dora run solver=magnet`, from a checkout or with `-P magnet_plugin` from anywhere.

`register()` also makes `audiocraft.train` resolve to this module, because AudioCraft's own needs a config folder that
its wheel lacks.
"""
import copy
import logging
import multiprocessing
import os
import random
import typing as tp
from pathlib import Path

import flashy
import numpy as np
import omegaconf
import torch
from audiocraft.environment import AudioCraftEnvironment
from dora import XP, get_xp, git_save, hydra_main
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from . import environment, registry
from .data.preflight import SPLITS, check_datasource
from .distributed import process_groups as ranks
from .metrics.machine import made_with
from .sweeps import records, slurm, slurm_config

environment.register_resolvers()
registry.register()

logger = logging.getLogger(__name__)


def per_rank(cfg: DictConfig) -> DictConfig:
    """A copy of `cfg` with the batch sizes of one rank and absolute manifest paths."""
    cfg = copy.deepcopy(cfg)
    world = flashy.distrib.world_size()
    holders = [("dataset", cfg.dataset)] + [(f"dataset.{split}", cfg.dataset.get(split)) for split in SPLITS]
    for name, holder in holders:
        if holder is None or holder.get("batch_size") is None:
            continue
        if holder.batch_size % world:
            raise ValueError(f"{name}.batch_size={holder.batch_size} does not divide by the {world} ranks; "
                             f"set it to a multiple of {world}")
        holder.batch_size //= world
    for key, value in cfg.datasource.items():
        if isinstance(value, str):
            cfg.datasource[key] = git_save.to_absolute_path(value)
    return cfg


def prepare_data(cfg: DictConfig) -> None:
    """Render the folk set that `cfg.datasource.folk` asks for, unless it is there."""
    folk = cfg.datasource.get("folk")
    if folk is None:
        return
    if flashy.distrib.is_rank_zero():
        from .data.folk.dataset import make_folk
        make_folk(Path(folk.out), clips=folk.clips, seed=folk.seed, sample_rate=cfg.sample_rate,
                  duration=folk.duration)
    flashy.distrib.barrier()


def get_solver(cfg: DictConfig) -> tp.Any:
    """The solver that `cfg.solver` names, its data in place."""
    from audiocraft import solvers
    check_datasource(cfg.datasource, cfg.execute_only)
    cfg = per_rank(cfg)
    prepare_data(cfg)
    return solvers.get_solver(cfg)


def get_solver_from_xp(xp: XP, override_cfg: tp.Union[dict, DictConfig, None] = None, restore: bool = True,
                       load_best: bool = True, ignore_state_keys: tp.Sequence[str] = (),
                       disable_fsdp: bool = True) -> tp.Any:
    """The solver of an experiment, its state restored.

    Args:
        xp: Dora experiment.
        override_cfg: nested values that replace the experiment's, without touching its signature.
        restore: load its checkpoint.
        load_best: take the best state instead of the last.
        ignore_state_keys: parts of the state to leave out, e.g. `optimizer`.
        disable_fsdp: load a sharded experiment into one process (needs `load_best`).
    """
    cfg = xp.cfg
    if override_cfg is not None:
        cfg = OmegaConf.merge(cfg, omegaconf.DictConfig(override_cfg))
    ignored = list(ignore_state_keys)
    if disable_fsdp and cfg.fsdp.use:
        if not load_best:
            raise ValueError("disable_fsdp=True needs load_best=True: only the best state is kept whole")
        cfg = copy.deepcopy(cfg)
        cfg.fsdp.use = False
        ignored += ["model", "ema", "best_state", "optimizer"]    # sharded; fsdp_best_state takes their place
    try:
        with xp.enter():
            solver = get_solver(cfg)
            if restore:
                solver.restore(load_best=load_best, ignore_state_keys=ignored)
        return solver
    finally:
        GlobalHydra.instance().clear()


def get_solver_from_sig(sig: str, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
    """The solver of the experiment with this Dora signature; see `get_solver_from_xp`."""
    return get_solver_from_xp(main.get_xp_from_sig(sig), *args, **kwargs)


def init_seed_and_system(cfg: DictConfig) -> None:
    """Seeds, threads and how workers start, before anything is built."""
    multiprocessing.set_start_method(cfg.mp_start_method, force=True)
    random.seed(cfg.seed)
    np.random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    torch.set_num_threads(cfg.num_threads)
    os.environ["MKL_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(cfg.num_threads)


def execute(cfg: DictConfig) -> tp.Any:
    """What the config asks for, on this rank."""
    solver = get_solver(cfg)
    if cfg.show:
        solver.show()
        return None
    if flashy.distrib.is_rank_zero():
        records.save_machine(solver.folder, made_with(environment.PACKAGE.parent, ("magnet-plugin", "audiocraft", "torch")))
    if cfg.execute_only:
        if not solver.restore(replay_metrics=False):
            raise ValueError(f"execute_inplace=true: this experiment has no checkpoint in {solver.folder}; train it first, "
                             "or give continue_from")
        solver.run_one_stage(cfg.execute_only)
        if flashy.distrib.is_rank_zero():
            metrics = solver._pending_metrics if cfg.execute_inplace else solver.history[-1]
            records.save_stage(solver.folder, cfg.execute_only, metrics[cfg.execute_only], len(solver.history))
        return None
    return solver.run()


@hydra_main(config_path=os.path.relpath(environment.config_dir(), Path(__file__).resolve().parent),
            config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> tp.Any:
    init_seed_and_system(cfg)
    name = f"{cfg.execute_only}.log.{{rank}}" if cfg.execute_only else "solver.log.{rank}"
    flashy.setup_logging(level=logging.getLevelName(str(cfg.logging.level).upper()), log_name=name)
    if cfg.execute_only and not (cfg.execute_inplace or cfg.continue_from):
        raise ValueError("execute_only needs a checkpoint: give continue_from=//sig/SIG (or a path), or "
                         "execute_inplace=true to use this experiment's own")
    timeout = ranks.check_timeout(cfg.distrib.timeout)
    slurm_config.set_master_port()
    ranks.init(timeout, alone=cfg.fsdp.use)
    with ranks.watched(timeout, get_xp().folder, name):
        return execute(cfg)


main.dora.dir = AudioCraftEnvironment.get_dora_dir()
main.dora.grid_package = environment.grids_package()
slurm.patch_dora(main, *(tp.cast(dict, OmegaConf.to_container(layer, resolve=True)) for layer in (
    main._base_cfg.slurm, AudioCraftEnvironment.instance()._get_cluster_config().get("slurm") or OmegaConf.create())))

if __name__ == "__main__":
    main()
