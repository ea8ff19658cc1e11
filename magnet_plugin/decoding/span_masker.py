"""Which frames are masked next: the least certain spans, as many as the schedule sets (section 3.1).

`SpanMasker` handles one codebook of a batch. The functions below it work on score tensors; higher scores are less certain.
Everything is batched, without synchronizing with the GPU; samples of a batch may differ in what is free.
"""
import torch
from torch.nn import functional as F

from ..modules.spans import chunk_index
from ..modules.tokens import replace_codebook
from .options import GenerationOptions
from .steps import Step

KEEP = -1e4     # Score of frames and spans that must not be masked again.


class SpanMasker:
    """Masks spans of one codebook, step by step.

    Args:
        codes: the codebook's tokens before its first step, Long [B, T].
        known: frames to keep, Bool [B, T].
        most_free: the largest number of unknown frames that a sample has.
        mask_id: the mask token.
        span_len: frames in a span.
        options: decoding settings: arrangement and scoring of spans.
    """

    def __init__(self, codes: torch.Tensor, known: torch.Tensor, most_free: int, mask_id: int, span_len: int,
                 options: GenerationOptions) -> None:
        self.initial, self.known, self.mask_id = codes, known, mask_id
        self.length = known.shape[-1]
        self.span_len = min(span_len, self.length)
        self.scoring = options.span_scoring
        # A span of one frame is its own chunk, whatever the arrangement.
        self.overlapping = options.span_arrangement == "stride1" and self.span_len > 1
        self.by_frame = self.overlapping or self.span_len == 1
        free = ~known if self.by_frame else any_in_chunk(~known, self.span_len)
        self.count = free.sum(dim=-1)                                                   # [B]
        self.most_free = most_free if self.by_frame else min(most_free, free.shape[-1])     # An upper bound of `count`.
        self.scores = keep(torch.zeros_like(free, dtype=torch.float32), ~free)
        self.masked_spans = free

    def mask(self, tokens: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the mask token on the least certain spans of the codebook.

        Args:
            tokens: Long [B, K, T].
            step: the step; its mask rate decides how much is masked.
        Returns:
            The masked tokens, Long [B, K, T], and which frames hold the mask token, Bool [B, T].
        """
        codes = torch.where(self._choose(step.rate), self.mask_id, tokens[:, step.stage])
        codes = torch.where(self.known, self.initial, codes)
        return replace_codebook(tokens, step.stage, codes), codes == self.mask_id

    def _choose(self, rate: torch.Tensor) -> torch.Tensor:
        """Bool [B, T]: what to mask at this mask rate (float32, no dimensions)."""
        count = (rate.to(self.count.device) * self.count).long().clamp_min(1)
        if self.overlapping:
            return mask_overlapping(self.scores, count, self.span_len)
        mask = mask_chunks(self.scores, count, self.span_len, self.length)
        self.masked_spans = mask if self.by_frame else any_in_chunk(mask, self.span_len)
        return mask

    def frames(self, masked: torch.Tensor, step: Step) -> torch.Tensor:
        """The frames whose predictions are needed, Long [B, M]; rows with fewer of them are padded with other frames.

        M is an upper bound that follows from the schedule, without synchronizing with the GPU.

        Args:
            masked: frames that hold the mask token, Bool [B, T].
            step: the step; the first one fills everything that is free.
        """
        count = max(int(step.rate * self.most_free) if step.index else self.most_free, 1)
        if self.overlapping:
            # `mask_overlapping` ends within one span of its target. The first step masks just what is free.
            limit = max(count, self.span_len) + (self.span_len if step.index else 0)
        else:
            limit = count if self.by_frame else count * self.span_len
            if not self.by_frame:       # A span is scored as a whole, with its known frames.
                masked = any_in_chunk(masked, self.span_len)[:, chunk_index(self.length, self.span_len, masked.device)]
        return masked.long().argsort(dim=-1, descending=True, stable=True)[:, :min(limit, self.length)]

    def score(self, likelihood: torch.Tensor, filled: torch.Tensor) -> None:
        """Score what a step has filled in.

        Args:
            likelihood: probability of each frame's token, [B, T].
            filled: frames that the step filled in, Bool [B, T].
        """
        if self.by_frame:
            self.scores = keep(-likelihood.log(), ~filled)
        else:
            self.scores = keep(chunk_scores(likelihood, self.span_len, self.scoring), ~self.masked_spans)


def keep(scores: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Give the entries `kept` (Bool) the score that protects them from being masked; both tensors are [B, N]."""
    return scores.masked_fill(kept, KEEP)


def ranks(scores: torch.Tensor) -> torch.Tensor:
    """Rank each entry within its row, 0 for the highest score; ties in order of position. [B, N] -> Long [B, N]."""
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

    The number of spans is found by bisection between the fewest and the most that can cover `target` frames. As in
    AudioCraft, the mask is that of the last number tried, which need not be the closest one.

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
    # The rank at which a frame is first covered: the lowest rank among the spans over it.
    out_of_reach = rank.new_full((B, span_len - 1), T)
    covered_at = torch.cat([out_of_reach, rank, out_of_reach], dim=-1).unfold(-1, span_len, 1).amin(dim=-1)  # [B, T]
    # covered[b, u]: frames covered by the first u spans.
    counts = torch.zeros(B, T + 1, dtype=torch.long, device=scores.device)
    counts.scatter_add_(-1, (covered_at + 1).clamp_max(T), torch.ones_like(covered_at))
    return covered_at < _bisect(counts.cumsum(dim=-1), target, span_len)[:, None]


def _bisect(covered: torch.Tensor, target: torch.Tensor, span_len: int) -> torch.Tensor:
    """Find the number of spans per sample, Long [B]; `covered` [B, T + 1] counts the frames of the first u spans."""
    low, high = target // span_len, target - span_len + 1
    middle = _half_even(low + high)
    last = middle
    for _ in range(covered.shape[-1].bit_length() + 1):       # A fixed number, more than any bisection needs.
        active = (middle > low) & (middle < high)
        last = torch.where(active, middle, last)
        too_many = covered.gather(-1, middle.clamp(0, covered.shape[-1] - 1)[:, None])[:, 0] > target
        high = torch.where(active & too_many, middle, high)
        low = torch.where(active & ~too_many, middle, low)
        middle = torch.where(active, _half_even(low + high), middle)
    return last


def _half_even(total: torch.Tensor) -> torch.Tensor:
    """Halve whole numbers >= 0, rounding to the nearest and halves to the even one, as Python's `round` does."""
    half = total // 2
    return half + (total % 2) * (half % 2)


def chunk_scores(probs: torch.Tensor, span_len: int, how: str) -> torch.Tensor:
    """Score non-overlapping spans.

    Args:
        probs: probability of each sampled token, [B, T].
        span_len: frames in a span; the last one may be shorter.
        how: `max`, 1 - the largest probability of the span; `prod`, the sum of -log p.
    Returns:
        [B, ceil(T / span_len)].
    """
    if how == "max":
        return 1 - _chunks(probs, span_len, 0.0).amax(dim=-1)
    return _chunks(-probs.log(), span_len, 0.0).sum(dim=-1)


def any_in_chunk(flags: torch.Tensor, span_len: int) -> torch.Tensor:
    """Whether any frame of each span is set: Bool [B, T] -> Bool [B, ceil(T / span_len)]."""
    return _chunks(flags, span_len, False).any(dim=-1)


def _chunks(x: torch.Tensor, span_len: int, fill: float) -> torch.Tensor:
    """[B, T] -> [B, chunks, span_len], the missing frames of the last chunk filled."""
    return F.pad(x, (0, -x.shape[-1] % span_len), value=fill).unflatten(-1, (-1, span_len))
