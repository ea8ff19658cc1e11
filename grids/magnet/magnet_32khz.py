"""Text to music as published: small and medium, on segments of 10 and of 30 s: `dora grid magnet.magnet_32khz`."""
from dora import Explorer

from .._base import ADAMW, PAPER, Scale, training


def grid(scale: Scale) -> Explorer:
    """Two lengths in two sizes."""
    medium = {**scale.music, **scale.medium, **ADAMW}
    return training(scale, small=[scale.music, {**scale.music, **scale.thirty}],
                    medium=[medium, {**medium, **scale.thirty}])


explorer = grid(PAPER)
