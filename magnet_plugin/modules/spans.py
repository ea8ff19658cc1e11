"""Spans of masked frames: from a mask rate to a number of span starts, and from starts to spans (section 3.2, appendix C).

Spans of `span_len` frames start at frames drawn without replacement and may overlap, so the share of masked frames is
random. Appendix C gives its mean; `num_starts` inverts it. Decoding with spans on a fixed grid (`nonoverlap`) uses
`chunk_index`.
"""
from __future__ import annotations

import torch
from torch import Tensor

_PERCENT = 100  # Rates are rounded to a percent, as in AudioCraft's training.
_TIE = 1e-12  # An expected rate this close below the requested one counts as reaching it, despite float64 rounding.


def dilate(starts: Tensor, span_len: int) -> Tensor:
    """Mark the frames covered by the spans that begin at `starts`.

    Args:
        starts: Bool [..., T], True where a span begins.
        span_len: frames per span, at least 1. A start at t covers t, ..., t + span_len - 1, as far as the clip goes.
    Returns:
        Bool [..., T], a new tensor.
    Raises:
        ValueError: if `span_len` is below 1.
    """
    _check_span_len(span_len)
    covered = starts.clone()
    for shift in range(1, min(span_len, starts.shape[-1])):
        covered[..., shift:] |= starts[..., :-shift]
    return covered


def expected_rate(starts: Tensor, seq_len: int | Tensor, span_len: int) -> Tensor:
    """Compute the mean share of masked frames for `starts` span starts (appendix C): 1 - C(T - l, u) / C(T, u).

    The quotient of the binomials equals prod_{i < l} (T - u - i) / (T - i), the probability that none of the l frames at
    which a span over a given frame could begin was drawn. These are l factors within [0, 1], so nothing overflows. The
    formula treats every frame as if l - 1 frames preceded it; the first l - 1 frames of a clip have fewer and are masked
    slightly less often. In a clip shorter than a span, any start counts as covering the whole clip.

    Args:
        starts: number of span starts u >= 0, integers of any shape; more than T counts as T.
        seq_len: frames T, an int or integers that broadcast with `starts`.
        span_len: frames per span l, at least 1.
    Returns:
        Float64 of the broadcast shape, from 0 (no starts) to 1.
    Raises:
        ValueError: if `span_len` is below 1.
    """
    _check_span_len(span_len)
    total = torch.as_tensor(seq_len, device=starts.device)
    kept = torch.ones((), dtype=torch.float64, device=starts.device)
    for i in range(span_len):
        factor = (total - starts - i).clamp(min=0).double() / (total - i).clamp(min=1)
        kept = kept * torch.where(total > i, factor, 1.0)
    return 1 - kept


def num_starts(rates: Tensor, seq_len: int | Tensor, span_len: int, max_len: int | None = None) -> Tensor:
    """Compute the number of span starts for mask rates.

    For spans of several frames, the rate is rounded to a percent, and the result is the fewest starts whose expected rate
    reaches it. For single frames, it is the rate times T, rounded. The result is at least 1, because a sample without a
    target contributes nothing.

    AudioCraft's training uses the same numbers with one exception. At a rate of 100 %, every frame is a start here, because
    decoding starts with everything masked. AudioCraft uses T - l + 1 starts, which can leave the first frames unmasked.

    Args:
        rates: mask rates within [0, 1], float [B].
        seq_len: frames T of all samples, or of each one (integers [B]; 0 gives 0 starts).
        span_len: frames per span, at least 1.
        max_len: an upper bound of a `seq_len` given per sample; avoids reading a tensor that may be on a GPU.
    Returns:
        Long [B], at most T.
    Raises:
        ValueError: if `span_len` is below 1.
    """
    _check_span_len(span_len)
    total = torch.as_tensor(seq_len, device=rates.device).expand(rates.shape)
    if span_len == 1:
        starts = (total * rates).round().long()
    else:
        percent = (_PERCENT * rates).round()
        longest = int(total.max()) if max_len is None else max_len
        counts = torch.arange(longest + 1, device=rates.device)
        reached = expected_rate(counts, total.unsqueeze(-1), span_len)  # [B, longest + 1], ascending
        wanted = (percent.double() / _PERCENT - _TIE).unsqueeze(-1)
        starts = torch.searchsorted(reached, wanted).squeeze(-1)
        starts = torch.where(percent >= _PERCENT, total, starts)
    return torch.minimum(starts.clamp(min=1), total)


def chunk_index(seq_len: int, span_len: int, device: torch.device | str | None = None) -> Tensor:
    """Return the number of the grid span that each frame belongs to: Long [T], with values below ceil(seq_len / span_len).

    If T is not a multiple of the span length, the last span is shorter.
    """
    _check_span_len(span_len)
    return torch.arange(seq_len, device=device) // span_len


def _check_span_len(span_len: int) -> None:
    if span_len < 1:
        raise ValueError(f"span_len counts frames and must be at least 1, got {span_len}")
