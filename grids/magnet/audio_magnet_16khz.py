"""Text to sound as published, small and medium: `dora grid magnet.audio_magnet_16khz`."""
from dora import Explorer

from .._base import PAPER, Scale, training_grid


def grid(scale: Scale) -> Explorer:
    """Train the two published sizes."""
    return training_grid(scale, small=[scale.sound], medium=[{**scale.sound, **scale.medium}])


explorer = grid(PAPER)
