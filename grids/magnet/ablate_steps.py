"""Decoding steps of each codebook: `dora grid magnet.ablate_steps`."""
from dora import Explorer

from .._base import PAPER, Scale, decoding


def grid(scale: Scale) -> Explorer:
    """The first codebook's steps with ten for the others, then the others' with twenty for the first."""
    first = [[steps, 10, 10, 10] for steps in (5, 10, 20, 40, 60)]
    others = [[20, steps, steps, steps] for steps in (1, 2, 5, 20)]
    return decoding(scale, scale.parent, [{"generate.lm.decoding_steps": steps} for steps in (*first, *others)])


explorer = grid(PAPER)
