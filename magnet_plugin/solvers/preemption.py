"""Mixin for trainings that can stop at any step and resume at that step, with the same draws and batches.

AudioCraft saves a checkpoint at the end of each epoch. On a signal (see `distributed/signals.py`), and every
`checkpoint.save_updates` updates, this mixin saves `preempted.th`: the contents of a checkpoint and a `Position`.
`checkpoint.th` stays as it was, and `preempted.th` is removed at the end of its epoch.
"""
import itertools
import typing as tp
from pathlib import Path

import flashy
import torch
from audiocraft.solvers.base import StandardSolver
from audiocraft.utils import checkpoint

from ..distributed.monitoring import announce_exit, set_status
from ..distributed.random_state import capture_random_state, restore_random_state, seed_random_state
from ..distributed.reduction import max_over_ranks
from ..distributed.saving import fall_back, remove_unfinished
from ..distributed.seeds import Stream, derive_seed
from ..distributed.signals import Preempted, SignalRecorder
from ..models import checkpoints
from .position import Position, batches_from, prepare_loader


class PreemptibleSolver(StandardSolver):
    """Solver mixin whose `run` stops on a signal, and resumes a run that was stopped."""
    _signals: tp.Optional[SignalRecorder] = None
    _position: tp.Optional[Position] = None
    _resumed: tp.Optional[Position] = None

    @property
    def preempted_path(self) -> Path:
        """File with the state within an epoch; with FSDP, each rank has its own."""
        return self.folder / self.checkpoint_path().name.replace("checkpoint", "preempted")

    def build_dataloaders(self) -> None:
        super().build_dataloaders()              # type: ignore[safe-super]
        for name, loader in self.dataloaders.items():
            prepare_loader(loader, self.cfg.seed if name == "train" else None)

    def run(self) -> None:
        """Train to the end, or until a signal; then save, and requeue the job or exit with 128 + the signal's number."""
        with SignalRecorder(any(getattr(loader, "num_workers", 0) for loader in self.dataloaders.values())) as self._signals:
            try:
                super().run()
                return
            except Preempted:
                pass
            except Exception as error:
                # SLURM also signals child processes such as ffmpeg. Only in a stage that will be repeated is this ignored.
                if not (self._signals.signum and self._position and self._position.step == self.train_updates_per_epoch):
                    raise
                self.logger.warning("The stage failed after a signal, and will be repeated: %r", error)
            self.save_position()
        announce_exit()
        self._signals.exit(self._signals.signum, flashy.distrib.rank())

    def restore(self, *args: tp.Any, **kwargs: tp.Any) -> bool:
        training = self._signals is not None
        if training and flashy.distrib.is_rank_zero() and not self.cfg.fsdp.use:
            remove_unfinished(self.checkpoint_path(), self.preempted_path)
        restored = super().restore(*args, **kwargs)
        if training and flashy.distrib.is_rank_zero():      # It is written after the checkpoint: a kill can be between.
            self.xp.link.update_history(self.history)
        return (training and self.restore_position()) or restored

    def load_checkpoints(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Optional[dict]:
        """Load a checkpoint as AudioCraft does; if this run's own one cannot be read, load the one before it."""
        try:
            return super().load_checkpoints(*args, **kwargs)
        except ValueError as error:
            path = self.checkpoint_path(use_fsdp=False)
            if self.cfg.fsdp.use or not str(error).startswith(str(path)):
                raise
            broken = fall_back(path) if flashy.distrib.is_rank_zero() else None
            if not max_over_ranks(int(broken is not None)):
                raise ValueError(f"{error}. There is no earlier checkpoint; delete it to start the run again") from None
            self.logger.warning(f"{error}. It is now {path.name}.unreadable, and the run goes on from the checkpoint before "
                                "it: the last epoch is trained again")
            return super().load_checkpoints(*args, **kwargs)

    def commit(self, save_checkpoints: bool = True) -> None:
        super().commit(save_checkpoints)
        if save_checkpoints:
            self._position = None
            if flashy.distrib.is_rank_zero() or self.cfg.fsdp.use:
                self.preempted_path.unlink(missing_ok=True)

    def save_position(self) -> None:
        """Write `preempted.th`."""
        position = self._position
        assert position is not None
        if flashy.distrib.is_rank_zero() or self.cfg.fsdp.use:
            state = {**self.state_dict(), "position": position.state_dict()}
            checkpoint.save_checkpoint(state, self.preempted_path, self.cfg.fsdp.use)

    def restore_position(self) -> bool:
        """Restore `preempted.th`, unless it is older than the last checkpoint or from another number of ranks.

        Returns:
            Whether the state was restored.
        """
        state = self._load_preempted()
        if state is None:
            return False
        position = state.pop("position")
        saved, world_size = len(position["ranks"]), flashy.distrib.world_size()
        if position["epoch"] < self.epoch:       # the run was killed between its last checkpoint and the removal
            if flashy.distrib.is_rank_zero() or self.cfg.fsdp.use:
                self.preempted_path.unlink(missing_ok=True)
            return False
        if saved != world_size:
            self.logger.warning(f"{self.preempted_path} was saved by {saved} ranks, but this run has {world_size}: epoch "
                                f"{self.epoch} starts again. To resume within the epoch, run with {saved} ranks.")
            return False
        self.load_state_dict(state)
        self._resumed = Position.from_state(position, flashy.distrib.rank())
        self.logger.info(f"Resuming in epoch {self.epoch} after {position['step']} of {self.train_updates_per_epoch} "
                         "updates.")
        return True

    def _load_preempted(self) -> tp.Optional[dict]:
        """Load `preempted.th`; None if it does not exist, or if the files of the ranks (FSDP) differ in their position."""
        path = self.preempted_path
        if self.cfg.fsdp.use:                    # a rank may have been killed before it renamed its new file
            checkpoint.check_sharded_checkpoint(path, path.with_name("preempted.th"))
        try:
            state = checkpoints.load(path) if path.exists() else None
        except ValueError as error:
            self.logger.warning(f"{error}. Epoch {self.epoch} starts again")
            state = None
        if self.cfg.fsdp.use:
            moment = 0 if state is None else 1 + state["position"]["epoch"] * (1 << 32) + state["position"]["step"]
            if max_over_ranks(moment) != -max_over_ranks(-moment):
                self.logger.warning(f"The {path.name} files of the ranks are missing or differ in their step: epoch "
                                    f"{self.epoch} starts again.")
                return None
        return state

    def log_progress(self, stage_name: str, iterable: tp.Iterable, total: tp.Optional[int] = None,
                     updates: int = 5) -> tp.Any:
        """Return AudioCraft's progress logger over `iterable`, which handles signals between two steps."""
        total = len(iterable) if total is None else total        # type: ignore[arg-type]
        return super().log_progress(stage_name, self._interruptible(iterable), total=total, updates=updates)

    def _interruptible(self, iterable: tp.Iterable) -> tp.Iterator:
        self._between_steps()
        for item in iterable:
            yield item
            self._between_steps()

    def _between_steps(self) -> None:
        """Stop if a signal was recorded; otherwise save the state if `checkpoint.save_updates` asks for it.

        In training, and with FSDP in every stage, all ranks are at the same step and stop together. In other stages without
        FSDP, only rank 0 decides: it holds all of the state after training, which is what has to be saved.

        Raises:
            Preempted: the run has to stop here.
        """
        if self._signals is None or not (self.is_training or self._position):
            return
        together = self.is_training or self.cfg.fsdp.use
        signum = max_over_ranks(self._signals.signum) if together else self._signals.signum
        if not self.is_training:
            if signum and (together or flashy.distrib.is_rank_zero()):
                self._signals.signum = signum
                raise Preempted
            return
        assert self._position is not None
        every = self.cfg.checkpoint.get("save_updates")
        new = self._position.current is None                   # otherwise the run has just resumed at this step
        if signum or (every and new and self._position.step and self._position.step % every == 0):
            if new:
                self._position.current = capture_random_state(self.model)
            self._position.gather()
            if signum:
                self._signals.signum = signum
                raise Preempted
            self.save_position()

    def run_stage(self, stage_name: str, method: tp.Callable, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        set_status(f"{stage_name}, epoch {self.epoch}")
        return super().run_stage(stage_name, method, *args, **kwargs)

    def common_train_valid(self, dataset_split: str, **kwargs: tp.Any) -> dict:
        if not self.is_training:
            return super().common_train_valid(dataset_split, **kwargs)
        return self._train_epoch()

    def _train_epoch(self) -> dict:
        """Run the remaining updates of this epoch. Return the means of its metrics over all updates and ranks."""
        self.model.train()
        if self._resumed is None:           # So that an epoch can be repeated, whatever happened before it.
            seed, rank = self.cfg.seed, flashy.distrib.rank()
            seed_random_state(derive_seed(seed, Stream.EPOCH, self.epoch, 1 + rank),
                              derive_seed(seed, Stream.EPOCH, self.epoch, 0), self.model)
        position = self._position = self._resumed or Position(self.epoch, capture_random_state(self.model))
        start, total = position.step, self.train_updates_per_epoch
        batches = self._remaining_batches(position, resumed=self._resumed is not None)
        self._resumed = None
        with self.profiler, self.deadlock_detect:              # the profiler records only the first updates
            if start < total:
                self._run_updates(position, batches, total)
            else:
                self._restore_current(position)
        position.current = capture_random_state(self.model)
        position.gather()
        position.step = total                                  # also if the loader had fewer batches
        return flashy.distrib.average_metrics(position.means(), total)

    def _restore_current(self, position: Position) -> None:
        assert position.current is not None
        restore_random_state(position.current, self.model)

    def _remaining_batches(self, position: Position, resumed: bool) -> tp.Iterable:
        """Return the batches from `position.step` on."""
        loader = self.dataloaders["train"]
        sampler = getattr(loader, "sampler", None)
        if isinstance(sampler, torch.utils.data.distributed.DistributedSampler):
            sampler.set_epoch(position.epoch)
        if resumed:
            restore_random_state(position.epoch_start, self.model)      # so that the same order of batches is drawn again
        if self.cfg.benchmark_no_load:
            self.logger.warning("benchmark_no_load=true: every update uses the first batch. Do not use it to train a model.")
            return itertools.repeat(next(iter(loader)))
        if position.step == 0:
            return loader
        return batches_from(loader, position.step, lambda: self._restore_current(position))

    def _run_updates(self, position: Position, batches: tp.Iterable, total: int) -> None:
        """Run the updates from `position.step` to `total`, and advance `position` after each."""
        steps = range(position.step, total)
        progress = self.log_progress("train", batches, total=len(steps), updates=self.log_updates)
        average = flashy.averager()                            # since the last line of the log
        for step, batch in zip(steps, progress):
            self.deadlock_detect.update("batch")
            set_status(f"train, epoch {position.epoch}, update {step + 1} of {total}")
            metrics = self.run_step(step, batch, {})
            self.deadlock_detect.update("step")
            if self.ema is not None and (step + 1) % self.cfg.optim.ema.updates == 0:
                self.ema.step()
            self.deadlock_detect.update("ema")
            self.profiler.step()
            if progress.update(**average(metrics)):
                average = flashy.averager()
            position.add(metrics)
            position.step, position.current = step + 1, None
            self.deadlock_detect.update("end_batch")
