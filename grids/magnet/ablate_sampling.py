"""Temperature, top-p and arrangement of the spans: `dora grid magnet.ablate_sampling`."""
from dora import Explorer

from .._base import PAPER, Scale, decoding_grid


def grid(scale: Scale) -> Explorer:
    """First temperature against top-p (0: all tokens); then spans that do not overlap, with both kinds of scoring."""
    draws = [{"generate.lm.temp": temp, "generate.lm.top_p": top_p} for top_p in (0.8, 0.9, 0.0) for temp in (1.0, 3.0, 4.5)]
    spans = [{"generate.lm.span_arrangement": "nonoverlap", "generate.lm.span_scoring": scoring}
             for scoring in ("max", "prod")]
    return decoding_grid(scale, scale.parent, [*draws, *spans])


explorer = grid(PAPER)
