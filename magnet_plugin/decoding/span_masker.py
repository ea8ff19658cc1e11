"""Which frames are masked next: the least certain spans, as many as the schedule sets (section 3.1).

`SpanMasker` handles one codebook of a batch. The functions below it work on score tensors; higher scores are less certain.
Everything is batched, without synchronizing with the GPU; samples of a batch may differ in what is free.
"""
import dataclasses
import typing as tp

import torch
from torch.nn import functional as F

from ..modules.spans import chunk_index
from ..modules.tokens import replace_codebook
from .options import GenerationOptions
from .steps import Step

KEEP = -1e4     # Score of frames and spans that must not be masked again.


@dataclasses.dataclass(frozen=True)
class SpanRule:
    """How spans are laid out and scored.

    Attributes:
        length: number of frames T.
        span_len: frames in a span, at most T.
        overlapping: a span may start at any frame (`stride1`), not only at multiples of its length (`nonoverlap`).
        scoring: score of a span of the grid, see `chunk_scores`.
    """
    length: int
    span_len: int
    overlapping: bool
    scoring: str

    @staticmethod
    def of(length: int, span_len: int, options: GenerationOptions) -> "SpanRule":
        """Build the rule for clips of `length` frames and a model trained with `span_len`."""
        span_len = min(span_len, length)
        # A span of one frame is its own chunk, whatever the arrangement.
        if options.fixed_order:         # Its scores are the same for all frames of a span of the grid.
            return SpanRule(length, span_len, False, "max")
        return SpanRule(length, span_len, options.span_arrangement == "stride1" and span_len > 1, options.span_scoring)

    @property
    def by_frame(self) -> bool:
        """Whether frames are scored and counted one by one, rather than by the spans of a grid."""
        return self.overlapping or self.span_len == 1

    def free(self, known: torch.Tensor) -> torch.Tensor:
        """Count the frames, or spans of the grid, that are not wholly known: Bool [B, T] -> Long [B]."""
        return (~known if self.by_frame else any_in_chunk(~known, self.span_len)).sum(dim=-1)

    def choose(self, likelihood: torch.Tensor, masked: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        """Choose what to mask next among the frames that the last step filled in.

        Args:
            likelihood: probability of each frame's token, [B, T].
            masked: frames that the last step filled in, Bool [B, T]. Only they can be masked again.
            count: number of frames, or of spans of the grid, Long [B].
        Returns:
            Bool [B, T].
        """
        if self.by_frame:
            scores = keep(-likelihood.log(), ~masked)
            if self.overlapping:
                return mask_overlapping(scores, count, self.span_len)
        else:
            scores = keep(chunk_scores(likelihood, self.span_len, self.scoring), ~any_in_chunk(masked, self.span_len))
        return mask_chunks(scores, count, self.span_len, self.length)


def counts_to_mask(rates: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Compute how many frames or spans each step masks: rates float32 [S], free Long [B] -> Long [S, B], at least 1."""
    return (rates[:, None] * free).long().clamp_min(1)


class SpanMasker:
    """Masks spans of one codebook, step by step.

    Args:
        codes: the codebook's tokens before its first step, Long [B, T], the mask token where unknown.
        known: frames to keep, Bool [B, T].
        most_free: the largest number of unknown frames that a sample has.
        mask_id: the mask token.
        rule: layout and scoring of spans.
        rates: mask rate of each step, float32 [S] on the tokens' device.
        fixed: scores of a fixed order, [B, T], see `span_order.fixed_scores`; None if likelihoods decide.
    """

    def __init__(self, codes: torch.Tensor, known: torch.Tensor, most_free: int, mask_id: int, rule: SpanRule,
                 rates: torch.Tensor, fixed: tp.Optional[torch.Tensor] = None) -> None:
        self.known, self.mask_id, self.rule, self.fixed = known, mask_id, rule, fixed
        self.counts = counts_to_mask(rates, rule.free(known))              # [S, B]
        self.most_free = most_free if rule.by_frame else min(most_free, -(-rule.length // rule.span_len))
        self.likelihood = torch.ones_like(codes, dtype=torch.float32)
        self.masked = codes == mask_id

    def mask(self, tokens: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the mask token on the least certain spans of the codebook.

        Args:
            tokens: Long [B, K, T].
            step: the step.
        Returns:
            The masked tokens, Long [B, K, T], and which frames hold the mask token, Bool [B, T].
        """
        chosen = self.rule.choose(self.likelihood, self.masked, self.counts[step.index]) & ~self.known
        codes = torch.where(chosen, self.mask_id, tokens[:, step.stage])
        return replace_codebook(tokens, step.stage, codes), codes == self.mask_id

    def frames(self, masked: torch.Tensor, step: Step) -> torch.Tensor:
        """Return the frames whose predictions are needed, Long [B, M]; rows with fewer of them are padded with others.

        M is an upper bound that follows from the schedule, without synchronizing with the GPU.

        Args:
            masked: frames that hold the mask token, Bool [B, T].
            step: the step; the first one fills everything that is free.
        """
        rule = self.rule
        count = max(int(step.rate * self.most_free) if step.index else self.most_free, 1)
        if rule.overlapping:
            # `mask_overlapping` ends within one span of its target. The first step masks just what is free.
            limit = max(count, rule.span_len) + (rule.span_len if step.index else 0)
        else:
            limit = count * rule.span_len
            if not rule.by_frame:       # A span is scored as a whole, with its known frames.
                masked = any_in_chunk(masked, rule.span_len)[:, chunk_index(rule.length, rule.span_len, masked.device)]
        return masked.long().argsort(dim=-1, descending=True, stable=True)[:, :min(limit, rule.length)]

    def score(self, likelihood: torch.Tensor, filled: torch.Tensor) -> None:
        """Note how certain the step's tokens are.

        Args:
            likelihood: probability of each frame's token, [B, T].
            filled: frames that the step filled in, Bool [B, T].
        """
        self.likelihood, self.masked = likelihood if self.fixed is None else self.fixed, filled


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
