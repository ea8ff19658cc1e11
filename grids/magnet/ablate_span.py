"""Span length against restricted context (the paper's ablations, section 5): `dora grid magnet.ablate_span`."""
from dora import Explorer

from .._base import PAPER, Scale, training_grid


def grid(scale: Scale) -> Explorer:
    """Every span length in frames, with five frames of context on either side and with all of them (-1)."""
    jobs = [{"masking.span_len": span, "transformer_lm.subcodes_context": context}
            for context in (5, -1) for span in (1, 2, 3, 4, 5, 10)]
    return training_grid(scale, small=[{**scale.music, **job} for job in jobs])


explorer = grid(PAPER)
