"""Temperature, nucleus and arrangement of the spans: `dora grid magnet.ablate_sampling`."""
from dora import Explorer

from .._base import PAPER, Scale, decoding


def grid(scale: Scale) -> Explorer:
    """Temperature at the start of a stage against top-p (0: all tokens); overlapping spans, and spans on a grid scored in
    both ways."""
    draws = [{"generate.lm.temp": temp, "generate.lm.top_p": top_p} for top_p in (0.8, 0.9, 0.0) for temp in (1.0, 3.0, 4.5)]
    spans = [{"generate.lm.span_arrangement": "nonoverlap", "generate.lm.span_scoring": scoring}
             for scoring in ("max", "prod")]
    return decoding(scale, scale.parent, [*draws, *spans])


explorer = grid(PAPER)
