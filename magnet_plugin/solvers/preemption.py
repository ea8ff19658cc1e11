"""Training that can stop at any step and go on at that very step, with what it would have drawn and seen next.

AudioCraft keeps checkpoints per epoch. Here a signal (see `signals.py`) or `checkpoint.save_updates` keeps a second file,
`preempted.th`: all that is in a checkpoint and a `Position`. It lies beside `checkpoint.th`, which stays as it was at the
end of the last epoch, and it is removed at the end of the epoch it belongs to.
"""
import dataclasses
import functools
import itertools
import typing as tp
from pathlib import Path

import flashy
import torch
from audiocraft.solvers.base import StandardSolver
from audiocraft.utils import checkpoint

from ..distributed import process_groups as ranks
from ..distributed.random_state import Randomness, put_back, randomness, seed_items
from ..distributed.signals import Listener, Preempted, shield_worker
from ..models import checkpoints


@dataclasses.dataclass
class Position:
    """Where in an epoch a training is. A signal after the last step leaves it there: the stages that follow are repeated."""
    epoch: int
    first: Randomness                    # of this rank, before the epoch's first batch was drawn
    step: int = 0                        # updates done
    now: tp.Optional[Randomness] = None  # of this rank, after those updates; None while it is what the process has
    ranks: list[dict[str, Randomness]] = dataclasses.field(default_factory=list)   # `first` and `now` of every rank
    totals: dict[str, list[float]] = dataclasses.field(default_factory=dict)       # sum and count of each metric

    def add(self, metrics: dict) -> None:
        for name, value in metrics.items():
            total = self.totals.setdefault(name, [0.0, 0.0])
            total[0] += float(value)
            total[1] += 1

    def means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.totals.items()}

    def gather(self) -> None:
        """Note the randomness of all ranks. A collective: each rank has to come here."""
        assert self.now is not None
        own = {"first": self.first, "now": self.now}
        self.ranks = [own]
        if flashy.distrib.is_distributed():
            self.ranks = [{} for _ in range(flashy.distrib.world_size())]
            torch.distributed.all_gather_object(self.ranks, own)


class _From:
    """Indices of the batches from `first` on. `ready` is called when the first of them is drawn, and the order with it."""

    def __init__(self, batches: tp.Iterable, first: int, ready: tp.Callable[[], None]) -> None:
        self.batches, self.first, self.ready = batches, first, ready

    def __iter__(self) -> tp.Iterator:
        for number, batch in enumerate(self.batches):
            if number == self.first:
                self.ready()
            if number >= self.first:
                yield batch


def batches_from(loader: tp.Any, first: int, ready: tp.Callable[[], None]) -> tp.Iterable:
    """The batches that `loader` gives, from number `first` on; none of the others is read where it is a DataLoader."""
    if not isinstance(loader, torch.utils.data.DataLoader):
        return _From(loader, first, ready)
    return torch.utils.data.DataLoader(
        loader.dataset, batch_sampler=_From(loader.batch_sampler, first, ready),             # type: ignore[arg-type]
        num_workers=loader.num_workers, collate_fn=loader.collate_fn, pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn, timeout=loader.timeout)


def prepare_worker(number: int, seed: tp.Optional[int]) -> None:
    """What a data worker does first. With a seed, what it draws for an item depends on seed, epoch and item alone."""
    shield_worker()
    info = torch.utils.data.get_worker_info()
    if seed is not None and info is not None:
        seed_items(info.dataset, seed)


def agree(signum: int) -> int:
    """The highest of the ranks' numbers. A collective."""
    if not flashy.distrib.is_distributed():
        return signum
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    highest = torch.tensor(signum, device=device)
    torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
    return int(highest)


class PreemptibleSolver(StandardSolver):
    """Mixin of AudioCraft's solvers. `run` listens to signals; a run that was stopped goes on where it was."""
    _listener: tp.Optional[Listener] = None
    _position: tp.Optional[Position] = None
    _resumed: tp.Optional[Position] = None

    @property
    def preempted_path(self) -> Path:
        """Where the state within an epoch is kept; a file of each rank with FSDP."""
        return self.folder / self.checkpoint_path().name.replace("checkpoint", "preempted")

    def build_dataloaders(self) -> None:
        super().build_dataloaders()              # type: ignore[safe-super]
        for name, loader in self.dataloaders.items():
            if isinstance(loader, torch.utils.data.DataLoader):
                loader.worker_init_fn = functools.partial(prepare_worker, seed=self.cfg.seed if name == "train" else None)

    def run(self) -> None:
        """Train to the end, or until a signal; then save and requeue, or exit with 128 + the signal's number."""
        workers = any(getattr(loader, "num_workers", 0) for loader in self.dataloaders.values())
        with Listener(workers) as self._listener:
            try:
                super().run()
                return
            except Preempted:
                pass
            except Exception as error:
                # SLURM signals child processes as well, ffmpeg for one. Only a stage that will be repeated may fail of it.
                if not (self._listener.signum and self._position and self._position.step == self.train_updates_per_epoch):
                    raise
                self.logger.warning("Stopped by a signal, and with it: %r", error)
            self.keep()
        ranks.farewell()
        self._listener.leave(self._listener.signum, flashy.distrib.rank())

    def restore(self, *args: tp.Any, **kwargs: tp.Any) -> bool:
        restored = super().restore(*args, **kwargs)
        return (self._listener is not None and self.resume()) or restored

    def commit(self, save_checkpoints: bool = True) -> None:
        super().commit(save_checkpoints)
        if save_checkpoints:
            self._position = None
            if flashy.distrib.is_rank_zero() or self.cfg.fsdp.use:
                self.preempted_path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Write `preempted.th`: what a checkpoint holds, and the position."""
        position = self._position
        assert position is not None
        if flashy.distrib.is_rank_zero() or self.cfg.fsdp.use:
            kept = {"epoch": position.epoch, "step": position.step, "totals": position.totals, "ranks": position.ranks}
            checkpoint.save_checkpoint({**self.state_dict(), "position": kept}, self.preempted_path, self.cfg.fsdp.use)

    def resume(self) -> bool:
        """Take over `preempted.th`, unless it is from before the last checkpoint or from another number of ranks."""
        state = self._kept()
        if state is None:
            return False
        kept = state.pop("position")
        world = flashy.distrib.world_size()
        if kept["epoch"] < self.epoch:
            return False
        if len(kept["ranks"]) != world:
            self.logger.warning(f"{self.preempted_path} was saved by {len(kept['ranks'])} ranks and there are {world} now: "
                                f"epoch {self.epoch} starts anew.")
            return False
        self.load_state_dict(state)
        own = kept["ranks"][flashy.distrib.rank()]
        self._resumed = Position(kept["epoch"], own["first"], kept["step"], own["now"], totals=kept["totals"])
        self.logger.info(f"Going on in epoch {self.epoch} after {kept['step']} of {self.train_updates_per_epoch} updates.")
        return True

    def _kept(self) -> tp.Optional[dict]:
        """What `preempted.th` holds; None without one, or where the ranks' files (FSDP) are not of the same moment."""
        path = self.preempted_path
        if self.cfg.fsdp.use:                    # a rank that was killed may not have given its new file its name
            checkpoint.check_sharded_checkpoint(path, path.with_name("preempted.th"))
        state = checkpoints.load(path) if path.exists() else None
        if self.cfg.fsdp.use:
            moment = 0 if state is None else 1 + state["position"]["epoch"] * (1 << 32) + state["position"]["step"]
            if agree(moment) != -agree(-moment):
                self.logger.warning(f"The ranks have no {path.name} of the same moment: epoch {self.epoch} starts anew.")
                return None
        return state

    def log_progress(self, stage_name: str, iterable: tp.Iterable, total: tp.Optional[int] = None,
                     updates: int = 5) -> tp.Any:
        """AudioCraft's, whose every step may be the last."""
        total = len(iterable) if total is None else total        # type: ignore[arg-type]
        return super().log_progress(stage_name, self._watched(iterable), total=total, updates=updates)

    def _watched(self, iterable: tp.Iterable) -> tp.Iterator:
        self._between_steps()
        for item in iterable:
            yield item
            self._between_steps()

    def _between_steps(self) -> None:
        """Stop here if a signal came, or keep the state if it is time.

        In training all ranks are at the same step and stop together, with FSDP in every stage. Without it they need not be
        so in the other stages; what is to be saved is the state after training, which the first rank has whole.
        """
        if self._listener is None or not (self.is_training or self._position):
            return
        together = self.is_training or self.cfg.fsdp.use
        signum = agree(self._listener.signum) if together else self._listener.signum
        if not self.is_training:
            if signum and (together or flashy.distrib.is_rank_zero()):
                self._listener.signum = signum
                raise Preempted
            return
        assert self._position is not None
        every = self.cfg.checkpoint.get("save_updates")
        fresh = self._position.now is None                     # else this step is what the run was resumed at
        if signum or (every and fresh and self._position.step and self._position.step % every == 0):
            if fresh:
                self._position.now = randomness(self.model)
            self._position.gather()
            if signum:
                self._listener.signum = signum
                raise Preempted
            self.keep()

    def run_stage(self, stage_name: str, method: tp.Callable, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        ranks.note(f"{stage_name}, epoch {self.epoch}")
        return super().run_stage(stage_name, method, *args, **kwargs)

    def common_train_valid(self, dataset_split: str, **kwargs: tp.Any) -> dict:
        if not self.is_training:
            return super().common_train_valid(dataset_split, **kwargs)
        return self._train_epoch()

    def _train_epoch(self) -> dict:
        """The updates of this epoch that are still to be done. Returns the means over all of them, and over the ranks."""
        self.model.train()
        position = self._position = self._resumed or Position(self.epoch, randomness(self.model))
        start, total = position.step, self.train_updates_per_epoch
        batches = self._batches(position, resumed=self._resumed is not None)
        self._resumed = None
        with self.profiler, self.deadlock_detect:              # the profiler looks at the first updates alone
            if start < total:
                self._updates(position, batches, total)
            else:
                put_back(position.now, self.model)
        position.now = randomness(self.model)
        position.gather()
        position.step = total                                  # fewer batches than updates end the epoch as well
        return flashy.distrib.average_metrics(position.means(), total)

    def _batches(self, position: Position, resumed: bool) -> tp.Iterable:
        """Batches from `position.step` on."""
        loader = self.dataloaders["train"]
        sampler = getattr(loader, "sampler", None)
        if isinstance(sampler, torch.utils.data.distributed.DistributedSampler):
            sampler.set_epoch(position.epoch)
        if resumed:
            put_back(position.first, self.model)               # the order of the batches is drawn anew, and the same
        if self.cfg.benchmark_no_load:
            self.logger.warning("benchmark_no_load: every update takes the first batch")
            return itertools.repeat(next(iter(loader)))
        if position.step == 0:
            return loader
        return batches_from(loader, position.step, lambda: put_back(position.now, self.model))

    def _updates(self, position: Position, batches: tp.Iterable, total: int) -> None:
        """Updates from `position.step` to `total`, which `position` follows."""
        steps = range(position.step, total)
        progress = self.log_progress("train", batches, total=len(steps), updates=self.log_updates)
        recent = flashy.averager()                             # since the last line of the log
        for step, batch in zip(steps, progress):
            self.deadlock_detect.update("batch")
            ranks.note(f"train, epoch {position.epoch}, update {step + 1} of {total}")
            metrics = self.run_step(step, batch, {})
            self.deadlock_detect.update("step")
            if self.ema is not None and (step + 1) % self.cfg.optim.ema.updates == 0:
                self.ema.step()
            self.deadlock_detect.update("ema")
            self.profiler.step()
            if progress.update(**recent(metrics)):
                recent = flashy.averager()
            position.add(metrics)
            position.step, position.now = step + 1, None
            self.deadlock_detect.update("end_batch")
