"""Text to sound as published: small and medium: `dora grid magnet.audio_magnet_16khz`."""
from dora import Explorer

from .._base import PAPER, Scale, training


def grid(scale: Scale) -> Explorer:
    """Two sizes."""
    return training(scale, small=[scale.sound], medium=[{**scale.sound, **scale.medium}])


explorer = grid(PAPER)
