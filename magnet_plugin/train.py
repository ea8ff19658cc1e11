"""Dora's entry point: `dora run solver=magnet` in a checkout, `dora -P magnet_plugin run solver=magnet` anywhere else.

`register()` also makes `audiocraft.train` refer to this module, because AudioCraft's own needs a config folder that its
wheel does not contain.
"""
import contextlib
import copy
import logging
import multiprocessing
import os
import random
import sys
import typing as tp
from pathlib import Path

import flashy
import numpy as np
import omegaconf
import torch
from dora import XP, get_xp, git_save, hydra_main
from dora.log import fatal, simple_log
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from . import environment, registry
from .data.manifests import SPLITS
from .data.preflight import check_datasource
from .distributed import process_groups
from .distributed.monitoring import monitored
from .distributed.reduction import max_over_ranks
from .metrics.machine import made_with
from .sweeps import records, runs, slurm, slurm_config
from .sweeps.holding import holding

environment.quiet_libraries()
registry.register()         # Dora imports only this module, and composes the config on import (`hydra_main` below)
from audiocraft.environment import AudioCraftEnvironment  # noqa: E402 (register() reports a missing AudioCraft)

logger = logging.getLogger(__name__)


def per_rank(cfg: DictConfig) -> DictConfig:
    """Return a copy of a config with batch sizes per rank and absolute manifest paths.

    Raises:
        ValueError: a batch size is not a multiple of the number of ranks.
    """
    cfg = copy.deepcopy(cfg)
    world_size = flashy.distrib.world_size()
    sections = [("dataset", cfg.dataset)] + [(f"dataset.{split}", cfg.dataset.get(split)) for split in SPLITS]
    for name, section in sections:
        if section is None or section.get("batch_size") is None:
            continue
        if section.batch_size % world_size:
            raise ValueError(f"{name}.batch_size={section.batch_size} is not a multiple of the {world_size} ranks; set it "
                             f"to a multiple of {world_size}")
        section.batch_size //= world_size
    for key, value in list(cfg.datasource.items()):
        if isinstance(value, str):
            cfg.datasource[key] = git_save.to_absolute_path(value)
    if cfg.datasource.get("scan"):
        cfg.datasource.scan = None          # AudioCraft takes every text in this section for the manifest of a split
    return cfg


def prepare_data(cfg: DictConfig) -> None:
    """Render the folk data set of `cfg.datasource.folk` on rank 0, unless it exists; the other ranks wait."""
    folk = cfg.datasource.get("folk")
    if folk is None:
        return
    if flashy.distrib.is_rank_zero():
        from .data.folk.dataset import make_folk
        make_folk(Path(folk.out), clips=folk.clips, seed=folk.seed, sample_rate=cfg.sample_rate,
                  duration=folk.duration, soundfonts=list(folk.get("soundfonts") or ()))
    flashy.distrib.barrier()


def get_solver(cfg: DictConfig) -> tp.Any:
    """Build the solver of a config, after its data is checked and prepared."""
    from audiocraft import solvers
    check_datasource(cfg.datasource, cfg.execute_only)
    cfg = per_rank(cfg)
    prepare_data(cfg)
    return solvers.get_solver(cfg)


def get_solver_from_xp(xp: XP, override_cfg: tp.Union[dict, DictConfig, None] = None, restore: bool = True,
                       load_best: bool = True, ignore_state_keys: tp.Sequence[str] = (),
                       disable_fsdp: bool = True) -> tp.Any:
    """Build the solver of an experiment and restore its state.

    Args:
        xp: Dora experiment.
        override_cfg: nested values that override the experiment's config; its signature stays the same.
        restore: whether to load the checkpoint.
        load_best: whether to load the best state instead of the last.
        ignore_state_keys: parts of the state that are not loaded, e.g. `optimizer`.
        disable_fsdp: whether to load an experiment with FSDP into one process; requires `load_best`.

    Raises:
        ValueError: `disable_fsdp` without `load_best` for an experiment with FSDP.
    """
    cfg = xp.cfg
    if override_cfg is not None:
        cfg = OmegaConf.merge(cfg, omegaconf.DictConfig(override_cfg))
    ignored = list(ignore_state_keys)
    if disable_fsdp and cfg.fsdp.use:
        if not load_best:
            raise ValueError("load_best=False with disable_fsdp=True: the checkpoint of a run with fsdp.use=true holds only "
                             "its best state whole. Set load_best=True, or disable_fsdp=False in a process group")
        cfg = copy.deepcopy(cfg)
        cfg.fsdp.use = False
        ignored += ["model", "ema", "best_state", "optimizer"]    # shards; fsdp_best_state replaces them
    try:
        with xp.enter():
            solver = get_solver(cfg)
            if restore:
                solver.restore(load_best=load_best, ignore_state_keys=ignored)
        return solver
    finally:
        GlobalHydra.instance().clear()


def get_solver_from_sig(sig: str, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
    """Build the solver of the experiment with this Dora signature; see `get_solver_from_xp`."""
    return get_solver_from_xp(main.get_xp_from_sig(sig), *args, **kwargs)


def init_seed_and_system(cfg: DictConfig) -> None:
    """Set the seeds, the number of threads and the start method of data workers. Call this before anything is built."""
    multiprocessing.set_start_method(cfg.mp_start_method, force=True)
    random.seed(cfg.seed)
    np.random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    torch.set_num_threads(cfg.num_threads)
    os.environ["MKL_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(cfg.num_threads)


def execute(cfg: DictConfig) -> tp.Any:
    """Run the configured action on this rank: `show`, one stage (`execute_only`), or the training."""
    solver = get_solver(cfg)
    if cfg.show:
        solver.show()
        return None
    if flashy.distrib.is_rank_zero():
        records.save_machine(solver.folder, made_with(environment.PACKAGE.parent, ("magnet-plugin", "audiocraft", "torch")))
    if not cfg.execute_only:
        return solver.run()
    if not solver.restore(replay_metrics=False):
        raise ValueError(f"execute_inplace=true: {solver.checkpoint_path()} does not exist; train this experiment first, or "
                         "set continue_from=//sig/SIG")
    solver.run_one_stage(cfg.execute_only)
    if flashy.distrib.is_rank_zero():
        metrics = solver._pending_metrics if cfg.execute_inplace else solver.history[-1]
        records.save_stage(solver.folder, cfg.execute_only, metrics[cfg.execute_only], len(solver.history))
    return None


def check_start(cfg: DictConfig) -> None:
    """Check the settings, and that the model which the run starts from exists, before data or models are loaded.

    Raises:
        ValueError: a setting is invalid, or the model does not exist; the message says what has to run first.
    """
    from .solvers import builders, settings
    if cfg.solver in builders.SOLVERS:
        settings.check_settings(cfg)
    if cfg.execute_only and not (cfg.execute_inplace or cfg.continue_from):
        raise ValueError(f"execute_only={cfg.execute_only} needs a checkpoint: set continue_from=//sig/SIG (or a path), or "
                         "execute_inplace=true to use this experiment's checkpoint")
    if cfg.continue_from and not (get_xp().folder / "checkpoint.th").exists():       # otherwise the run resumes from its own
        runs.check_trained(str(cfg.continue_from), main.dora.dir)


@contextlib.contextmanager
def held(cfg: DictConfig) -> tp.Iterator[None]:
    """Hold the run within the context; end all ranks with one line if another process holds it.

    A stage in place only reads the run's checkpoint, so that it may run next to the training.
    """
    refusal = ""
    with contextlib.ExitStack() as stack:
        if flashy.distrib.is_rank_zero() and not (cfg.show or cfg.execute_inplace):
            try:
                stack.enter_context(holding(get_xp().folder))
            except ValueError as error:
                refusal = str(error)
        if max_over_ranks(int(bool(refusal))):
            if refusal:
                simple_log("FATAL:", refusal)
            sys.exit(1)
        yield


@hydra_main(config_path=os.path.relpath(environment.config_dir(), Path(__file__).resolve().parent),
            config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> tp.Any:
    """Run an experiment on this rank."""
    init_seed_and_system(cfg)
    name = f"{cfg.execute_only}.log.{{rank}}" if cfg.execute_only else "solver.log.{rank}"
    flashy.setup_logging(level=logging.getLevelName(str(cfg.logging.level).upper()), log_name=name)
    try:
        check_start(cfg)
    except ValueError as error:
        fatal(str(error))
    timeout = process_groups.check_timeout(cfg.distrib.timeout)
    slurm_config.set_master_port()
    process_groups.init(timeout, force=cfg.fsdp.use)
    with held(cfg), monitored(timeout, get_xp().folder, name):
        return execute(cfg)


main.dora.dir = AudioCraftEnvironment.get_dora_dir()
main.dora.grid_package = environment.grids_package()
slurm.patch_dora(main, *(tp.cast(dict, OmegaConf.to_container(layer, resolve=True)) for layer in (
    main._base_cfg.slurm, AudioCraftEnvironment.instance()._get_cluster_config().get("slurm") or OmegaConf.create())))

if __name__ == "__main__":
    main()
