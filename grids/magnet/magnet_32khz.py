"""Text to music as published, small and medium, on segments of 10 and 30 s: `dora grid magnet.magnet_32khz`."""
from dora import Explorer

from .._base import ADAMW, PAPER, Scale, training_grid


def grid(scale: Scale) -> Explorer:
    """Train two sizes on two segment lengths."""
    medium = {**scale.music, **scale.medium, **ADAMW}
    return training_grid(scale, small=[scale.music, {**scale.music, **scale.thirty}],
                    medium=[medium, {**medium, **scale.thirty}])


explorer = grid(PAPER)
