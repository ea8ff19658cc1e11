"""Evaluate the published music models: `dora grid magnet.magnet_pretrained_32khz_eval`."""
from dora import Explorer

from .._base import PAPER, Scale, evaluation_grid


def grid(scale: Scale) -> Explorer:
    """One job per model."""
    return evaluation_grid(scale, [{**settings, "continue_from": name} for name, settings in scale.published_music.items()])


explorer = grid(PAPER)
