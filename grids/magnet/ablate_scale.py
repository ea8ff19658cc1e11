"""Model size: `dora grid magnet.ablate_scale`."""
from dora import Explorer

from .._base import PAPER, Scale, training_grid


def grid(scale: Scale) -> Explorer:
    """Train the sizes of a scale; all but the first request the machines of `medium`."""
    small, *larger = scale.sizes
    return training_grid(scale, small=[{**scale.music, **small}], medium=[{**scale.music, **size} for size in larger])


explorer = grid(PAPER)
