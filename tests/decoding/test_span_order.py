"""A fixed order of spans: evenly spread, followed by every step, and independent of what the model predicts."""
import pytest
import torch

from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.options import GenerationOptions
from magnet_plugin.decoding.random_source import GLOBAL, RandomSource
from magnet_plugin.decoding.span_masker import SpanRule
from magnet_plugin.decoding.span_order import fixed_scores, spread
from magnet_plugin.decoding.steps import Step
from magnet_plugin.modules.schedules import mask_rates

from ..helpers.oracles import CARD, SPAN_LEN, K, nothing_known, random_logits, run

HALTON = {"span_order": "halton", "temp": 1.0}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 34, 64, 167])
def test_every_beginning_of_the_order_is_spread_evenly(count: int) -> None:
    """The largest gap on the circle is at most a few times the mean one; in a row, it would be nearly everything."""
    order = spread(count)
    assert sorted(order) == list(range(count))
    for taken in range(1, count + 1):
        places = sorted(order[:taken])
        gaps = [after - before for before, after in zip(places, [*places[1:], places[0] + count])]
        assert max(gaps) <= 2 * count / taken + 2, taken


@pytest.mark.parametrize("length", [1, 2, 24, 50, 97])
def test_scores_fall_along_the_rolled_order(length: int) -> None:
    rule = SpanRule.of(length, 3, GenerationOptions(span_order="halton"))
    count = -(-length // rule.span_len)
    scores = fixed_scores(rule, 2, 1, RandomSource.seeded([3, 4]), torch.device("cpu"))
    assert scores.shape == (2, length) and scores.min() > 0 and scores.max() < 1
    orders = set()
    for row in scores:
        by_span = row[::rule.span_len]
        assert torch.equal(by_span.repeat_interleave(rule.span_len)[:length], row), "all frames of a span score alike"
        found = by_span.argsort(descending=True).tolist()
        rolls = [[(place - start) % count for place in spread(count)] for start in range(count)]
        assert found in rolls
        orders.add(tuple(found))
    assert len(orders) == 2 or count < 8, "each sample has its own start"


@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
@pytest.mark.parametrize("scoring", ["max", "prod"])
def test_a_span_that_is_filled_stays_filled(arrangement: str, scoring: str) -> None:
    """Each step masks what the schedule says of the spans that are left, the last ones of the order."""
    length, steps = 50, (6, 3, 2, 2)
    spans = -(-length // SPAN_LEN)
    masked: dict[int, list[torch.Tensor]] = {}

    def note(step: Step, frames: torch.Tensor) -> None:
        masked.setdefault(step.stage, []).append(frames.clone())

    seen: list[torch.Tensor] = []
    predict = random_logits(2, length)

    def see(tokens: torch.Tensor, stage: int, scale: float) -> torch.Tensor:
        seen.append(tokens[:, stage].clone())
        return predict(tokens, stage, scale)

    tokens = run(see, nothing_known(2, length), decoding_steps=steps, span_arrangement=arrangement, span_scoring=scoring,
                 on_step=note, **HALTON)
    assert (tokens < CARD).all() and set(masked) == {0, 1, 2, 3}
    for stage, found in masked.items():
        assert found[0].all()
        for index, (before, after) in enumerate(zip(found, found[1:]), 1):
            assert not (after & ~before).any(), "nothing is masked again"
            count = max(1, int(mask_rates(steps[stage])[index] * spans))
            for row in after:
                assert int(row[::SPAN_LEN].sum()) == count, (stage, index)
    assert not torch.equal(masked[0][3][0], masked[0][3][1]), "samples have orders of their own"
    for codes in seen[1:steps[0]]:
        kept = codes < CARD
        assert torch.equal(codes[kept], tokens[:, 0][kept]), "what is filled in is final"


def test_known_tokens_are_kept_and_the_rest_is_filled() -> None:
    for case in range(12):
        generator = torch.Generator().manual_seed(case)
        length = 5 + 4 * case
        known = torch.rand(3, K, length, generator=generator) < torch.tensor([0.1, 0.6, 1.0])[:, None, None]
        clip = KnownTokens(torch.randint(0, CARD, (3, K, length), generator=generator), known)
        tokens = run(random_logits(3, length), clip, **HALTON)
        assert torch.equal(tokens[known], clip.tokens[known]) and (tokens < CARD).all(), case


def test_without_seeds_the_global_random_state_decides() -> None:
    rule, cpu = SpanRule.of(240, 3, GenerationOptions(span_order="halton")), torch.device("cpu")
    torch.manual_seed(0)
    one, other = (fixed_scores(rule, 1, 0, GLOBAL, cpu) for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(one, fixed_scores(rule, 1, 0, GLOBAL, cpu)) and not torch.equal(one, other)
