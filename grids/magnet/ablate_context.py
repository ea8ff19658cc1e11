"""Width of the restricted context of later codebooks: `dora grid magnet.ablate_context`."""
from dora import Explorer

from .._base import PAPER, Scale, training


def grid(scale: Scale) -> Explorer:
    """Frames on either side that codebooks 2 and up attend to; 0 is a frame's own tokens, -1 all."""
    return training(scale, small=[{**scale.music, "transformer_lm.subcodes_context": frames}
                                  for frames in (0, 1, 2, 5, 10, 20, 50, -1)])


explorer = grid(PAPER)
