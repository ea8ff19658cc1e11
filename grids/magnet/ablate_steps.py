"""Decoding steps of each codebook: `dora grid magnet.ablate_steps`."""
from dora import Explorer

from .._base import PAPER, Scale, decoding_grid


def grid(scale: Scale) -> Explorer:
    """Vary the steps of the first codebook with ten for the others, then those of the others with twenty for the first."""
    first = [[steps, 10, 10, 10] for steps in (5, 10, 20, 40, 60)]
    others = [[20, steps, steps, steps] for steps in (1, 2, 5, 20)]
    return decoding_grid(scale, scale.parent, [{"generate.lm.decoding_steps": steps} for steps in (*first, *others)])


explorer = grid(PAPER)
