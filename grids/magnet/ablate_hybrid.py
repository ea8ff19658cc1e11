"""Length of the part that Hybrid-MAGNeT generates autoregressively: `dora grid magnet.ablate_hybrid`."""
from dora import Explorer

from .._base import PAPER, Scale, decoding_grid


def grid(scale: Scale) -> Explorer:
    """Seconds before parallel decoding starts; 0 decodes everything in parallel."""
    jobs = [{"hybrid.prompt.duration": seconds} for seconds in (0, *scale.prompt_durations)]
    return decoding_grid(scale, scale.hybrid, jobs)


explorer = grid(PAPER)
