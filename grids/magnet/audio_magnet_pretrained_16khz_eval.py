"""The published sound models, evaluated: `dora grid magnet.audio_magnet_pretrained_16khz_eval`."""
from dora import Explorer

from .._base import PAPER, Scale, judging


def grid(scale: Scale) -> Explorer:
    """One job per model."""
    return judging(scale, [{**settings, "continue_from": name} for name, settings in scale.published_sound.items()])


explorer = grid(PAPER)
