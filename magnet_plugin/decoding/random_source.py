"""Random numbers of a batch, drawn for each sample by itself, so that a sample does not depend on its neighbours."""
import dataclasses
import hashlib
import numbers
import typing as tp

import torch

Seed = tp.Union[int, tp.Sequence[int], None]
"""One seed for a batch, one per sample, or None: torch's global random state."""


@dataclasses.dataclass(frozen=True)
class RandomSource:
    """The source of all randomness of a generation.

    Attributes:
        generators: one for each sample, on the device of its tokens; empty for torch's global random state.
    """
    generators: tuple[torch.Generator, ...] = ()

    @staticmethod
    def seeded(seeds: tp.Optional[tp.Sequence[int]], device: tp.Union[torch.device, str] = "cpu") -> "RandomSource":
        """Make a source with one seed per sample, or that of torch's global random state for None."""
        return RandomSource(tuple(torch.Generator(device).manual_seed(seed) for seed in seeds or ()))

    def derived(self, *place: int) -> "RandomSource":
        """Return a source for one place of a generation, such as (stage, step), whose numbers depend on nothing else."""
        return RandomSource(tuple(torch.Generator(one.device).manual_seed(_derived(one.initial_seed(), *place))
                                  for one in self.generators))

    def uniform(self, batch: int, *shape: int, device: torch.device) -> torch.Tensor:
        """Draw uniform random numbers in [0, 1), float32 [batch, *shape].

        Raises:
            ValueError: there are generators, but not one per sample.
        """
        if not self.generators:
            return torch.rand(batch, *shape, device=device)
        if len(self.generators) != batch:
            raise ValueError(f"{len(self.generators)} random generators for {batch} samples; give one per sample")
        return torch.stack([torch.rand(shape, generator=one, device=device) for one in self.generators])


GLOBAL = RandomSource()       # torch's global random state


def sample_seeds(seed: Seed, batch: int) -> tp.Optional[list[int]]:
    """Return one seed per sample.

    The first sample of a batch has the batch's own seed, and the others have seeds derived from it. Any sample can be
    generated again by itself under its own seed.

    >>> sample_seeds(7, 3)
    [7, 627184205, 1500626960]

    Args:
        seed: see `Seed`.
        batch: number of samples B.
    Raises:
        ValueError: a seed is not a whole number, or there is not one for each sample.
    """
    if seed is None:
        return None
    if isinstance(seed, int) and not isinstance(seed, bool):
        return [_whole(seed)] + [_derived(seed, index) for index in range(1, batch)]
    if isinstance(seed, (str, float, bool)) or not hasattr(seed, "__len__"):
        raise ValueError(f"seed={seed!r} must be a whole number, or a list with one per sample")
    if len(seed) != batch:
        raise ValueError(f"{len(seed)} seeds for {batch} samples; give one seed, or one per sample")
    return [_whole(one) for one in seed]


def place_seeds(seeds: tp.Optional[tp.Sequence[int]], place: int) -> tp.Optional[list[int]]:
    """Derive seeds for a place of a long clip; at place 0 they are the seeds themselves."""
    return None if seeds is None else [_derived(seed, place) if place else seed for seed in seeds]


def _whole(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or not -2 ** 63 <= seed < 2 ** 64:
        raise ValueError(f"seed={seed!r} must be a whole number from -2^63 to 2^64 - 1")
    return int(seed)


def _derived(seed: int, *place: int) -> int:
    digest = hashlib.blake2b(":".join(map(str, (seed, *place))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % 2 ** 31
