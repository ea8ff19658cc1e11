"""Span length against restricted context (the paper's section 5, ablations): `dora grid magnet.ablate_span`."""
from .._base import PAPER, Job, training

SPANS = (1, 2, 3, 4, 5, 10)       # frames
CONTEXTS = (5, -1)                # frames on either side that later codebooks attend to; -1: all


def jobs() -> list[Job]:
    """Every span length with and without restricted context."""
    return [{"masking.span_len": span, "transformer_lm.subcodes_context": context}
            for context in CONTEXTS for span in SPANS]


explorer = training(PAPER, jobs())
