"""The kernel of `triton_step.remask`: which spans are masked next, as `span_masker.SpanRule` defines it.

The spans of a sample are held by one program. Ranks come from counting, for each span, the spans before it: the work grows
with the square of the length, but needs neither sorting nor memory.
"""
from .jit import jit, tl


@jit
def remask_kernel(codes, known, masked, likelihood, counts, index, codes_stride, known_stride, masked_stride,
                  likelihood_stride, batch, length, spans, mask_id, SPAN: tl.constexpr, OVERLAPPING: tl.constexpr,
                  BY_FRAME: tl.constexpr, LARGEST: tl.constexpr, KEEP: tl.constexpr, FRAMES: tl.constexpr,
                  SPANS: tl.constexpr, TILE: tl.constexpr):
    """Compute one sample: score the spans, rank them, and mask the frames of the first ones."""
    sample = tl.program_id(0).to(tl.int64)
    codes += sample * codes_stride
    masked += sample * masked_stride
    count = tl.load(counts + tl.load(index) * batch + sample).to(tl.int32)
    score = span_scores(likelihood + sample * likelihood_stride, masked, length, spans, SPAN, OVERLAPPING, BY_FRAME, LARGEST,
                        KEEP, SPANS)
    rank = span_ranks(score, spans, SPANS, TILE)
    frame = tl.arange(0, FRAMES)
    inside = frame < length
    if OVERLAPPING:
        reached = first_cover(rank, frame, spans, SPAN, FRAMES)
        chosen = reached < spans_to_mask(reached, inside, count, SPAN)
    else:
        chosen = tl.gather(rank, tl.minimum(frame // SPAN, SPANS - 1), 0) < count
    free = tl.load(known + sample * known_stride + frame, mask=inside, other=1) == 0
    tokens = tl.where(chosen & free, mask_id, tl.load(codes + frame, mask=inside, other=0))
    tl.debug_barrier()          # All threads have read `masked`.
    tl.store(codes + frame, tokens, mask=inside)
    tl.store(masked + frame, tokens == mask_id, mask=inside)


@jit
def span_scores(likelihood, masked, length, spans, SPAN: tl.constexpr, OVERLAPPING: tl.constexpr, BY_FRAME: tl.constexpr,
                LARGEST: tl.constexpr, KEEP: tl.constexpr, SPANS: tl.constexpr):
    """Score the spans as `SpanRule.choose` does: float32 [SPANS], -inf behind the last span."""
    span = tl.arange(0, SPANS)
    start = span if OVERLAPPING else span * SPAN
    total = tl.zeros([SPANS], tl.float32)
    largest = tl.zeros([SPANS], tl.float32)
    hidden = tl.zeros([SPANS], tl.int32)
    for offset in range(SPAN):
        inside = start + offset < length
        chance = tl.load(likelihood + start + offset, mask=inside, other=1.0)      # Adds nothing to the sum.
        filled = tl.load(masked + start + offset, mask=inside, other=0) != 0
        surprise = -tl.log(chance)
        if BY_FRAME:
            surprise = tl.where(filled, surprise, KEEP)
        total += surprise
        largest = tl.maximum(largest, tl.where(inside, chance, 0.0))
        hidden = hidden | filled.to(tl.int32)
    if BY_FRAME:
        score = total
    else:
        score = tl.where(hidden != 0, (1 - largest) if LARGEST else total, KEEP)
    score = tl.where(score != score, float("inf"), score)
    return tl.where(span < spans, score, float("-inf"))


@jit
def span_ranks(score, spans, SPANS: tl.constexpr, TILE: tl.constexpr):
    """Rank the spans, 0 for the highest score, ties in order of position, by counting the spans before each: int32."""
    span = tl.arange(0, SPANS)
    rank = tl.zeros([SPANS], tl.int32)
    first = 0
    while first < spans:        # The interpreter's `range` takes no bound that is a tensor.
        other = first + tl.arange(0, TILE)
        others = tl.gather(score, other, 0)[None, :]
        before = (others > score[:, None]) | ((others == score[:, None]) & (other[None, :] < span[:, None]))
        rank += tl.sum(before.to(tl.int32), axis=1)
        first += TILE
    return rank


@jit
def first_cover(rank, frame, spans, SPAN: tl.constexpr, FRAMES: tl.constexpr):
    """Find the lowest rank among the overlapping spans over each frame: int32 [FRAMES]."""
    reached = tl.full([FRAMES], FRAMES, tl.int32)
    for offset in range(SPAN):
        span = frame - offset
        exists = (span >= 0) & (span < spans)
        found = tl.gather(rank, tl.where(exists, span, 0), 0)
        reached = tl.minimum(reached, tl.where(exists, found, FRAMES))
    return reached


@jit
def spans_to_mask(reached, inside, count, SPAN: tl.constexpr):
    """Find by bisection how many spans cover about `count` frames, as `span_masker.mask_overlapping` does."""
    target = tl.maximum(count, SPAN)
    low = target // SPAN
    high = target - SPAN + 1
    middle = half_even(low + high)
    last = middle
    while (middle > low) & (middle < high):
        last = middle
        too_many = tl.sum((inside & (reached < middle)).to(tl.int32), axis=0) > target
        high = tl.where(too_many, middle, high)
        low = tl.where(too_many, low, middle)
        middle = half_even(low + high)
    return last


@jit
def half_even(total):
    """Halve a whole number >= 0, halves to the even one."""
    half = total // 2
    return half + (total % 2) * (half % 2)
