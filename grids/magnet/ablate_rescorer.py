"""Weight of a rescorer (the paper's appendix, Model Rescorer): `dora grid magnet.ablate_rescorer`."""
from dora import Explorer

from .._base import PAPER, Scale, decoding


def grid(scale: Scale) -> Explorer:
    """MAGNeT's own share w; 1 is MAGNeT alone, 0 trusts the rescorer."""
    return decoding(scale, scale.parent, [{"generate.lm.rescorer": scale.rescorer, "generate.lm.rescorer_weight": weight}
                                          for weight in (1.0, 0.9, 0.7, 0.5, 0.3, 0.1)])


explorer = grid(PAPER)
