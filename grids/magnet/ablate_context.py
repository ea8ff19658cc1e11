"""Width of the restricted context of the later codebooks: `dora grid magnet.ablate_context`."""
from dora import Explorer

from .._base import PAPER, Scale, training_grid


def grid(scale: Scale) -> Explorer:
    """Frames on either side that codebooks 2 and up attend to; 0 allows only the frame itself, -1 all frames."""
    contexts = (0, 1, 2, 5, 10, 20, 50, -1)
    return training_grid(scale, small=[{**scale.music, "transformer_lm.subcodes_context": frames} for frames in contexts])


explorer = grid(PAPER)
