"""Length of the part that Hybrid-MAGNeT writes token by token: `dora grid magnet.ablate_hybrid`."""
from dora import Explorer

from .._base import PAPER, Scale, decoding


def grid(scale: Scale) -> Explorer:
    """Seconds before the rest is filled in; 0 decodes all in parallel."""
    return decoding(scale, scale.hybrid, [{"hybrid.prompt.duration": seconds} for seconds in (0, *scale.prompts)])


explorer = grid(PAPER)
