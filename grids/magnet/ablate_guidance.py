"""Classifier-free guidance while a stage is decoded: `dora grid magnet.ablate_guidance`."""
from dora import Explorer

from .._base import PAPER, Scale, decoding


def grid(scale: Scale) -> Explorer:
    """Coefficients while all and while nothing is masked: annealed as published, weaker, none, constant, reversed."""
    return decoding(scale, scale.parent, [{"generate.lm.max_cfg_coef": first, "generate.lm.min_cfg_coef": last}
                                          for first, last in ((10, 1), (20, 1), (5, 1), (3, 1), (1, 1), (3, 3), (5, 5),
                                                              (10, 10), (1, 5), (1, 10))])


explorer = grid(PAPER)
