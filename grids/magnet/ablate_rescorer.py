"""Weight of a rescorer (the paper's appendix, Model Rescorer): `dora grid magnet.ablate_rescorer`."""
from dora import Explorer

from .._base import PAPER, Scale, decoding_grid


def grid(scale: Scale) -> Explorer:
    """Weight w of MAGNeT's own probabilities; 1 is MAGNeT only, 0 the rescorer only."""
    jobs = [{"generate.lm.rescorer": scale.rescorer, "generate.lm.rescorer_weight": weight}
            for weight in (1.0, 0.9, 0.7, 0.5, 0.3, 0.1)]
    return decoding_grid(scale, scale.parent, jobs)


explorer = grid(PAPER)
