"""Size of the model: `dora grid magnet.ablate_scale`."""
from dora import Explorer

from .._base import PAPER, Scale, training


def grid(scale: Scale) -> Explorer:
    """The sizes of a scale, the later ones as large as `medium`."""
    small, *larger = scale.sizes
    return training(scale, small=[{**scale.music, **small}],
                    medium=[{**scale.music, **size} for size in larger])


explorer = grid(PAPER)
