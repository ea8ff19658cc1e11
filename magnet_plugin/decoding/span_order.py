"""A fixed order of spans, instead of the most certain first (after Halton scheduling, arXiv 2503.17076)."""
import math

import torch

from ..modules.spans import chunk_index
from .random_source import RandomSource
from .span_masker import SpanRule

PLACE = 1 << 20         # of the random numbers of an order, apart from those of all steps


def van_der_corput(index: int) -> float:
    """Mirror the binary digits of a whole number at the point, which gives the Halton sequence in one dimension.

    >>> [van_der_corput(index) for index in range(5)]
    [0.0, 0.5, 0.25, 0.75, 0.125]
    """
    value, share = 0.0, 0.5
    while index:
        value += share * (index & 1)
        index, share = index >> 1, share / 2
    return value


def spread(count: int) -> list[int]:
    """Order the numbers below `count` so that every beginning of the order covers the range evenly.

    >>> spread(6)
    [0, 3, 1, 4, 2, 5]
    """
    places = dict.fromkeys(math.floor(count * van_der_corput(index)) for index in range(2 * count))
    return list(places)


def fixed_scores(rule: SpanRule, batch: int, stage: int, random: RandomSource, device: torch.device) -> torch.Tensor:
    """Return what takes the place of likelihoods, float32 [B, T]: higher for spans that come earlier in the order.

    Each sample and codebook starts at a random place of the order's circle, so that no part of a clip always comes first.

    Args:
        rule: layout of the spans: those of a grid, or single frames.
        batch: number of samples B.
        stage: the codebook.
        random: the source of randomness.
        device: of the result.
    """
    count = -(-rule.length // rule.span_len)
    turn = torch.empty(count, dtype=torch.long, device=device)
    turn[torch.tensor(spread(count), device=device)] = torch.arange(count, device=device)
    starts = (random.derived(PLACE, stage).uniform(batch, 1, device=device) * count).long()         # [B, 1]
    rolled = turn[(torch.arange(count, device=device) + starts) % count]                             # [B, spans]
    earliness = 1 - (rolled + 0.5) / count
    return earliness[:, chunk_index(rule.length, rule.span_len, device)]
