"""The published music models, evaluated: `dora grid magnet.magnet_pretrained_32khz_eval`."""
from dora import Explorer

from .._base import PAPER, Scale, judging


def grid(scale: Scale) -> Explorer:
    """One job per model."""
    return judging(scale, [{**settings, "continue_from": name} for name, settings in scale.published_music.items()])


explorer = grid(PAPER)
