"""The position of a training within an epoch, and data loaders that resume there."""
import dataclasses
import functools
import typing as tp

import flashy
import torch

from ..data.unreadable import skip_unreadable
from ..distributed.random_state import RandomState
from ..distributed.seeds import seed_items
from ..distributed.signals import protect_worker


@dataclasses.dataclass
class Position:
    """The progress of an epoch on this rank.

    A signal in the stages after training leaves the position after the last step, so these stages are repeated.

    Attributes:
        epoch: number of the epoch, from 1.
        epoch_start: random state before the first batch of the epoch was drawn.
        step: number of completed updates.
        current: random state after those updates; None while it is the present state of the process.
        ranks: `epoch_start`, `current` and `totals` of every rank, set by `gather`.
        totals: sum and count of each metric.
    """
    epoch: int
    epoch_start: RandomState
    step: int = 0
    current: tp.Optional[RandomState] = None
    ranks: list[dict[str, tp.Any]] = dataclasses.field(default_factory=list)
    totals: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, metrics: dict) -> None:
        """Add the metrics of one step."""
        for name, value in metrics.items():
            total = self.totals.setdefault(name, [0.0, 0.0])
            total[0] += float(value)
            total[1] += 1

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over the steps that reported it."""
        return {name: total / count for name, (total, count) in self.totals.items()}

    def gather(self) -> None:
        """Collect the random states and the totals of all ranks. This is a collective operation."""
        assert self.current is not None
        own = {"first": self.epoch_start, "now": self.current, "totals": self.totals}
        self.ranks = [own]
        if flashy.distrib.is_distributed():
            self.ranks = [{} for _ in range(flashy.distrib.world_size())]
            torch.distributed.all_gather_object(self.ranks, own)

    def state_dict(self) -> dict[str, tp.Any]:
        """Return what a file has to hold to restore the position on every rank."""
        return {"epoch": self.epoch, "step": self.step, "totals": self.totals, "ranks": self.ranks}

    @classmethod
    def from_state(cls, state: dict[str, tp.Any], rank: int) -> "Position":
        """Restore the position of a rank from `state_dict`."""
        own = state["ranks"][rank]
        return cls(state["epoch"], own["first"], state["step"], own["now"],
                   totals=own.get("totals", state["totals"]))         # Files of earlier versions hold only rank 0's.


class _Skip:
    """Iterate over batches from number `first` on.

    `ready` is called when batch `first` is drawn. By then the order of all batches, which is random, has been drawn as well.
    """

    def __init__(self, batches: tp.Iterable, first: int, ready: tp.Callable[[], None]) -> None:
        self.batches, self.first, self.ready = batches, first, ready

    def __iter__(self) -> tp.Iterator:
        for number, batch in enumerate(self.batches):
            if number == self.first:
                self.ready()
            if number >= self.first:
                yield batch


def batches_from(loader: tp.Any, first: int, ready: tp.Callable[[], None]) -> tp.Iterable:
    """Return the batches of a loader from number `first` on.

    Args:
        loader: a `torch.utils.data.DataLoader`, which does not load the skipped batches, or another iterable.
        first: number of batches to skip.
        ready: called when batch `first` is drawn.
    """
    if not isinstance(loader, torch.utils.data.DataLoader):
        return _Skip(loader, first, ready)
    return torch.utils.data.DataLoader(
        loader.dataset, batch_sampler=_Skip(loader.batch_sampler, first, ready),             # type: ignore[arg-type]
        num_workers=loader.num_workers, collate_fn=loader.collate_fn, pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn, timeout=loader.timeout)


def prepare_loader(loader: tp.Any, seed: tp.Optional[int]) -> None:
    """Let the workers of a data loader survive preemption signals.

    Args:
        loader: a `torch.utils.data.DataLoader`; anything else is left as it is.
        seed: if given, the random draws of an item depend only on the seed, the epoch and the item's index.
    """
    if isinstance(loader, torch.utils.data.DataLoader):
        loader.worker_init_fn = functools.partial(prepare_worker, seed=seed)


def prepare_worker(number: int, seed: tp.Optional[int]) -> None:
    """Initialize a data worker; see `prepare_loader`."""
    protect_worker()
    info = torch.utils.data.get_worker_info()
    if info is not None:
        skip_unreadable(info.dataset)
    if seed is not None and info is not None:
        seed_items(info.dataset, seed)
