"""The kernel of `triton_step.fill`: guidance, probabilities and the drawn token of one frame.

A program holds the logits of one frame. The rules of sampling are those of `sampling.draw`.
"""
from .jit import jit, tl


@jit
def fill_kernel(codes, masked, likelihood, logits, difference, settings, uniforms, index, first_bad, codes_stride,
                masked_stride, likelihood_stride, logits_batch_stride, logits_frame_stride, batch, length, card, rounds,
                top_k, top_p, BOTH: tl.constexpr, REUSE: tl.constexpr, WRITE: tl.constexpr, SAMPLE: tl.constexpr,
                TRUNCATE: tl.constexpr, BLOCK: tl.constexpr):
    """Compute one frame of one sample."""
    frame, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = sample * length + frame
    step = tl.load(index)
    temperature = tl.load(settings + 2 * step)
    scale = tl.load(settings + 2 * step + 1)
    token = tl.arange(0, BLOCK)
    inside = token < card
    at = logits + sample * logits_batch_stride + frame * logits_frame_stride + token
    values = guided_logits(at, at + batch * logits_batch_stride, difference, row * card + token, scale, inside, BOTH, REUSE,
                           WRITE)
    bad = tl.sum((inside & ~(tl.abs(values) < float("inf"))).to(tl.int32), axis=0) > 0
    tl.atomic_min(first_bad, step, mask=bad)
    probs = softmax(tl.div_rn(values, temperature), inside)
    if SAMPLE:
        numbers = uniforms + (step * batch * length + row) * rounds
        kept = most_likely(probs, inside, top_k) if TRUNCATE else probs
        drawn = draw_nucleus(kept, token, card, numbers, rounds, top_p)
    else:
        drawn = tl.argmax(values, 0)
    drawn = tl.minimum(drawn, card - 1)     # Only differs if no logit is a number.
    tl.store(likelihood + sample * likelihood_stride + frame, value_at(probs, token, drawn))
    hidden = tl.load(masked + sample * masked_stride + frame) != 0
    tl.store(codes + sample * codes_stride + frame, drawn.to(tl.int64), mask=hidden)


@jit
def guided_logits(conditional, unconditional, difference, place, scale, inside, BOTH: tl.constexpr, REUSE: tl.constexpr,
                  WRITE: tl.constexpr):
    """Load a row of logits and apply guidance as `step.guided` does: float32 [BLOCK], -inf behind the last token."""
    values = tl.load(conditional, mask=inside, other=0.0).to(tl.float32)
    if BOTH:
        without = tl.load(unconditional, mask=inside, other=0.0).to(tl.float32)
        gap = values - without
        if WRITE:
            tl.store(difference + place, gap, mask=inside)
        values = without + gap * scale
    if REUSE:
        values += (scale - 1) * tl.load(difference + place, mask=inside, other=0.0)
    return tl.where(inside, values, float("-inf"))


@jit
def softmax(values, inside):
    """Probabilities of a row."""
    weights = tl.where(inside, tl.exp(values - tl.max(values, 0)), 0.0)
    return tl.div_rn(weights, tl.sum(weights, 0))


@jit
def most_likely(probs, inside, count):
    """Set all but the `count` largest probabilities to 0; those equal to the smallest of them stay."""
    bits = tl.where(inside, probs.to(tl.int32, bitcast=True), -1)      # Ordered as the probabilities, which are >= 0.
    low = tl.min(tl.where(inside, bits, 0x7FFFFFFF), 0)                # `count` values are >= low, fewer are >= high.
    high = tl.max(bits, 0) + 1
    while high - low > 1:
        middle = low + (high - low) // 2
        enough = tl.sum((bits >= middle).to(tl.int32), 0) >= count
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
    return tl.where(bits >= low, probs, 0.0)


@jit
def draw_nucleus(probs, token, card, uniforms, rounds, top_p):
    """Draw a token by rejection, as `sampling._draw_nucleus` does."""
    result = tl.argmax(probs, 0)
    floor = 0.0
    turn = 0
    while turn < rounds:
        weights = tl.where(probs > floor, probs, 0.0)
        sums = tl.cumsum(weights, 0)
        point = tl.load(uniforms + turn) * value_at(sums, token, card - 1)
        drawn = tl.sum(((sums <= point) & (token < card)).to(tl.int32), 0)
        drawn = tl.minimum(drawn, card - 1)
        chance = value_at(probs, token, drawn)
        above = tl.sum(tl.where(probs > chance, probs, 0.0), 0)
        hit = (above <= top_p) & (chance > floor)       # Rounding can hit a token without weight.
        floor = tl.maximum(floor, chance)
        result = tl.where(hit, drawn, result)
        turn = tl.where(hit, rounds, turn + 1)
    return result


@jit
def value_at(values, place, wanted):
    """Read one element of a block."""
    return tl.sum(tl.where(place == wanted, values, 0.0), 0)
