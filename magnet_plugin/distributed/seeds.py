"""Seeds derived from the seed of an experiment: one stream of random numbers per use, epoch, step and rank."""
import enum
import functools
import random
import typing as tp

import flashy
import numpy as np
import torch


class Stream(enum.IntEnum):
    """What a derived seed is used for. Seeds of different streams never coincide."""
    STAGE = 0
    MASKS = 1
    ITEMS = 2
    EPOCH = 3


def derive_seed(seed: int, *key: int) -> int:
    """Derive an independent 63-bit seed with :class:`numpy.random.SeedSequence`.

    Args:
        seed: the seed of the experiment, at least 0.
        key: non-negative numbers that identify the stream, such as `Stream.MASKS`, epoch, step and rank. Keys that
            differ in any number, or in length, give unrelated seeds.
    """
    state = np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def stage_and_generator(seed: int, epoch: tp.Optional[int], step: int, n_q: int, device: tp.Union[str, torch.device]
                        ) -> tuple[int, torch.Generator]:
    """Draw the stage of a step and create the generator of its masks.

    Both depend only on the arguments and on the rank, so a step can be repeated after a restart.

    Args:
        seed: the seed of the experiment.
        epoch: training epoch, from 1; None in validation, which draws the same in every epoch.
        step: step within the epoch, from 0.
        n_q: number of codebooks K.
        device: device of the generator.

    Returns:
        The stage, which is the same on all ranks because gradients are averaged head by head, and a generator for the
        masks of this rank. Validation cycles through the stages, so that a few batches cover all of them.
    """
    if epoch is None:
        stage, epoch = step % n_q, 0
    else:
        shared = torch.Generator().manual_seed(derive_seed(seed, Stream.STAGE, epoch, step))
        stage = int(torch.randint(n_q, (), generator=shared))
    own = derive_seed(seed, Stream.MASKS, epoch, step, flashy.distrib.rank())
    return stage, torch.Generator(device).manual_seed(own)


def seed_items(dataset: tp.Any, seed: int) -> None:
    """Make the random draws of a dataset's items depend only on `seed`, the epoch and the item's index.

    Call this in a data worker. Without it, an item's draws depend on which worker loads it and on what that worker loaded
    before, and both change when an epoch is resumed.

    Args:
        dataset: an AudioCraft dataset, or a `torch.utils.data.Subset` of one. Its class is replaced.
        seed: the seed of the experiment.
    """
    while isinstance(dataset, torch.utils.data.Subset):
        dataset = dataset.dataset
    dataset.__class__ = _seeded(type(dataset), seed)     # type: ignore[arg-type]


@functools.lru_cache
def _seeded(klass: type, seed: int) -> type:
    class Seeded(klass):                         # type: ignore[misc,valid-type]
        def __getitem__(self, index: int) -> tp.Any:
            own = derive_seed(seed, Stream.ITEMS, getattr(self, "current_epoch", None) or 0, index)
            random.seed(own)
            np.random.seed(own % 2 ** 32)
            torch.manual_seed(own)
            return super().__getitem__(index)
    return Seeded
