"""Evaluate the published sound models: `dora grid magnet.audio_magnet_pretrained_16khz_eval`."""
from dora import Explorer

from .._base import PAPER, Scale, evaluation_grid


def grid(scale: Scale) -> Explorer:
    """One job per model."""
    return evaluation_grid(scale, [{**settings, "continue_from": name} for name, settings in scale.published_sound.items()])


explorer = grid(PAPER)
