"""Which positions are masked again: the least sure spans, as many as the schedule asks for (paper, section 3.1).

Batched and free of host synchronisation. The number of positions asked for may differ between samples.
"""
import torch

from ..modules.spans import chunk_index
from .scoring import KEEP


def ranks(scores: torch.Tensor) -> torch.Tensor:
    """Rank of each entry in its row, 0 for the highest score: [B, N] -> Long [B, N]; ties in order of position."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter(-1, order, places)


def mask_chunks(scores: torch.Tensor, count: torch.Tensor, span_len: int, length: int) -> torch.Tensor:
    """Mask the `count` highest-scored spans of a grid.

    Args:
        scores: [B, ceil(length / span_len)].
        count: number of spans to mask, Long [B].
        span_len: frames in a span.
        length: frames T.
    Returns:
        Bool [B, T], True where masked.
    """
    chosen = ranks(scores) < count[:, None]
    return chosen[:, chunk_index(length, span_len, scores.device)]


def mask_overlapping(scores: torch.Tensor, target: torch.Tensor, span_len: int) -> torch.Tensor:
    """Mask the highest-scored overlapping spans until about `target` frames are masked.

    The number u of spans is bisected between the fewest and the most that can cover `target` frames. The mask is that
    of the last number tried, as upstream has it, not that of the closest one.

    Args:
        scores: score of each frame, [B, T]; a span's score is their sum.
        target: frames to mask, Long [B].
        span_len: frames in a span, at most T.
    Returns:
        Bool [B, T], True where masked.
    """
    B, T = scores.shape
    target = target.clamp_min(span_len)
    rank = ranks(scores.unfold(-1, span_len, 1).sum(dim=-1))               # [B, T - span_len + 1]
    # The rank at which a frame is first covered: the least among the spans over it.
    out_of_reach = rank.new_full((B, span_len - 1), T)
    covered_at = torch.cat([out_of_reach, rank, out_of_reach], dim=-1).unfold(-1, span_len, 1).amin(dim=-1)  # [B, T]
    # covered[b, u]: frames covered by the first u spans.
    counts = torch.zeros(B, T + 1, dtype=torch.long, device=scores.device)
    counts.scatter_add_(-1, (covered_at + 1).clamp_max(T), torch.ones_like(covered_at))
    return covered_at < _bisect(counts.cumsum(dim=-1), target, span_len)[:, None]


def _bisect(covered: torch.Tensor, target: torch.Tensor, span_len: int) -> torch.Tensor:
    """Number of spans per sample, Long [B]; `covered` [B, T + 1] counts the frames of the first u spans."""
    low, high = target // span_len, target - span_len + 1
    middle = _half_even(low + high)
    last = middle
    for _ in range(covered.shape[-1].bit_length() + 1):       # fixed length: more than any bisection needs
        active = (middle > low) & (middle < high)
        last = torch.where(active, middle, last)
        too_many = covered.gather(-1, middle.clamp(0, covered.shape[-1] - 1)[:, None])[:, 0] > target
        high = torch.where(active & too_many, middle, high)
        low = torch.where(active & ~too_many, middle, low)
        middle = torch.where(active, _half_even(low + high), middle)
    return last


def _half_even(total: torch.Tensor) -> torch.Tensor:
    """total / 2 rounded to the nearest whole number, halves to the even one (Python's round), for Long total >= 0."""
    half = total // 2
    return half + (total % 2) * (half % 2)


def keep_given(scores: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Give everything that is not free the score that keeps it: [B, N], Bool [B, N] -> [B, N]."""
    return scores.masked_fill(~free, KEEP)
