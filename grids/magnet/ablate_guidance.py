"""Classifier-free guidance while a codebook is decoded: `dora grid magnet.ablate_guidance`."""
from dora import Explorer

from .._base import PAPER, Scale, decoding_grid


def grid(scale: Scale) -> Explorer:
    """First and last guidance scale: annealed as published, weaker, none, constant, increasing."""
    scales = ((10, 1), (20, 1), (5, 1), (3, 1), (1, 1), (3, 3), (5, 5), (10, 10), (1, 5), (1, 10))
    jobs = [{"generate.lm.max_cfg_coef": first, "generate.lm.min_cfg_coef": last} for first, last in scales]
    return decoding_grid(scale, scale.parent, jobs)


explorer = grid(PAPER)
