"""Choosing the spans that the next step masks."""
import pytest
import torch

from magnet_plugin.decoding import span_masker
from magnet_plugin.decoding.options import GenerationOptions
from magnet_plugin.decoding.span_masker import SpanMasker, SpanRule
from magnet_plugin.decoding.steps import steps_of
from magnet_plugin.modules.schedules import mask_rates


@pytest.mark.parametrize("arrangement, tolerance", [("nonoverlap", 0), ("stride1", 6)])
def test_the_masked_share_follows_the_schedule(arrangement: str, tolerance: int) -> None:
    """Spans of a grid are counted exactly; overlapping spans may miss the scheduled number of frames by two spans."""
    length, span_len, count, mask_id = 99, 3, 5, 12
    options = GenerationOptions(decoding_steps=(count,), span_arrangement=arrangement)
    tokens = torch.full((1, 1, length), mask_id)
    masker = SpanMasker(tokens[:, 0], torch.zeros(1, length, dtype=torch.bool), length, mask_id,
                        SpanRule.of(length, span_len, options), mask_rates(count))
    generator = torch.Generator().manual_seed(0)
    for step, rate in zip(steps_of(0, options), mask_rates(count), strict=True):
        tokens, masked = masker.mask(torch.where(tokens == mask_id, 7, tokens), step)
        assert torch.equal(masked, tokens[:, 0] == mask_id)
        expected = span_len * max(1, int(rate * 33)) if arrangement == "nonoverlap" else max(span_len, int(rate * length))
        assert abs(int(masked.sum()) - expected) <= tolerance, step.index
        masker.score(torch.rand(1, length, generator=generator), masked)


def test_grid_spans_are_masked_and_scored_as_a_loop_does() -> None:
    generator = torch.Generator().manual_seed(5)
    for length, span_len in ((10, 3), (11, 4), (9, 3), (5, 2)):
        chunks = -(-length // span_len)
        scores = torch.rand(2, chunks, generator=generator)
        count = torch.tensor([1, chunks - 1])
        mask = span_masker.mask_chunks(scores, count, span_len, length)
        for row in range(2):
            expected = torch.zeros(length, dtype=torch.bool)
            for chunk in scores[row].argsort(descending=True)[:count[row]].tolist():
                expected[chunk * span_len:(chunk + 1) * span_len] = True
            assert torch.equal(mask[row], expected)
        probs = torch.rand(2, length, generator=generator)
        for how, slow in (("max", lambda p: 1 - p.max()), ("prod", lambda p: -p.log().sum())):
            expected = torch.stack([torch.stack([slow(row[i:i + span_len]) for i in range(0, length, span_len)])
                                    for row in probs])
            assert torch.allclose(span_masker.chunk_scores(probs, span_len, how), expected, atol=1e-6), how
