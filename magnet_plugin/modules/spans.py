"""Spans of masked frames: mask rate <-> number of span starts, and starts -> spans (section 3.2, appendix C).

Spans of `span_len` frames start at frames drawn without replacement and may overlap, so that the share of masked frames
is random; appendix C gives its mean, and this module inverts it. Decoding with a fixed grid of spans (`nonoverlap`)
takes its frame -> span numbering from here as well.
"""
from __future__ import annotations

import torch
from torch import Tensor

_PERCENT = 100  # rates are rounded to a percent before they are looked up, as in upstream's training
_TIE = 1e-12  # an expected rate this close below the asked one has reached it: float64 noise must not cost a start


def dilate(starts: Tensor, span_len: int) -> Tensor:
    """Marks the frames covered by the spans that begin at `starts`.

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
    """Mean share of masked frames for `starts` span starts (appendix C): 1 - C(T - l, u) / C(T, u).

    The quotient of the binomials equals prod_{i < l} (T - u - i) / (T - i), the chance that none of the l frames which
    could begin a span over a given frame was drawn: l factors within [0, 1], so nothing overflows. The formula is the
    paper's and counts every frame as if it had l - 1 frames before it; the first l - 1 frames of a clip have fewer and
    are masked a little less often. In a clip shorter than a span any start counts as covering all of it.

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
    """Number of span starts for the asked mask rates.

    For spans of several frames: the rate is rounded to a percent, and the answer is the fewest starts whose expected
    rate reaches it. For single frames: the rate times T, rounded. At least 1 in either case, as a sample without a
    target teaches nothing. These are the numbers of upstream's training but for one: a rate of 100 % takes every frame
    as a start (upstream: T - l + 1 of them, which leaves the clip's first frames unmasked now and then), because
    decoding begins with everything masked.

    Args:
        rates: mask rates within [0, 1], float [B].
        seq_len: frames T of all samples, or of each one (integers [B]; 0 gives 0 starts).
        span_len: frames per span, at least 1.
        max_len: an upper bound on a `seq_len` given per sample; spares a look at a tensor that may lie on a GPU.
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
        asked = (percent.double() / _PERCENT - _TIE).unsqueeze(-1)
        starts = torch.searchsorted(reached, asked).squeeze(-1)
        starts = torch.where(percent >= _PERCENT, total, starts)
    return torch.minimum(starts.clamp(min=1), total)


def span_start_table(seq_len: int, span_len: int) -> Tensor:
    """`num_starts` for the rates 0 %, 1 %, ..., 100 %: Long [101]."""
    rates = torch.arange(_PERCENT + 1, dtype=torch.float64) / _PERCENT
    return num_starts(rates, seq_len, span_len, max_len=seq_len)


def num_chunks(seq_len: int, span_len: int) -> int:
    """Spans on the fixed grid that cover `seq_len` frames; the last one may be shorter."""
    _check_span_len(span_len)
    return -(-seq_len // span_len)


def chunk_index(seq_len: int, span_len: int, device: torch.device | str | None = None) -> Tensor:
    """Number of the grid span that each frame belongs to: Long [T], with values below `num_chunks(seq_len, span_len)`.

    Every frame has one, also where T is not a multiple of the span length: the last span is then the shorter one.
    """
    _check_span_len(span_len)
    return torch.arange(seq_len, device=device) // span_len


def _check_span_len(span_len: int) -> None:
    if span_len < 1:
        raise ValueError(f"span_len counts frames and must be at least 1, got {span_len}.")
