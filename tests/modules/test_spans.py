import math
import random
from fractions import Fraction

import pytest
import torch

from magnet_plugin.modules.spans import chunk_index, dilate, expected_rate, num_starts


def slow_dilate(starts, span_len):
    covered = [False] * len(starts)
    for t, begins in enumerate(starts):
        if begins:
            for s in range(t, min(t + span_len, len(starts))):
                covered[s] = True
    return covered


def test_dilate_equals_a_loop():
    draw = random.Random(0)
    for case in range(100):
        seq_len, span_len = draw.randint(1, 40), draw.randint(1, 12)
        starts = torch.rand(3, seq_len, generator=torch.Generator().manual_seed(case)) < draw.random() / 2
        before = starts.clone()
        expected = [slow_dilate(row, span_len) for row in starts.tolist()]
        assert dilate(starts, span_len).tolist() == expected, f"{case=} {seq_len=} {span_len=}"
        assert torch.equal(starts, before), "the argument was changed"


def test_dilate_keeps_leading_dimensions():
    starts = torch.zeros(2, 4, 9, dtype=torch.bool)
    starts[1, 2, 7] = True
    assert dilate(starts, 3).nonzero().tolist() == [[1, 2, 7], [1, 2, 8]]
    assert dilate(starts[0, 0], 3).shape == (9,)


def test_expected_rate_is_the_papers_formula():
    for seq_len, span_len in [(20, 3), (50, 7), (498, 3), (1500, 3)]:
        counts = torch.arange(0, seq_len + 1, max(1, seq_len // 20))
        binomials = [1 - Fraction(math.comb(seq_len - span_len, u), math.comb(seq_len, u)) for u in counts.tolist()]
        expected = torch.tensor([float(rate) for rate in binomials], dtype=torch.float64)
        torch.testing.assert_close(expected_rate(counts, seq_len, span_len), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seq_len, span_len, count", [(60, 3, 1), (60, 3, 12), (60, 3, 40), (80, 5, 20)])
def test_expected_rate_is_the_mean_share_that_random_starts_cover(seq_len, span_len, count):
    samples = 20000
    generator = torch.Generator().manual_seed(seq_len + count)
    starts = torch.rand(samples, seq_len, generator=generator).argsort(-1) < count
    share = dilate(starts, span_len).double().mean(0)  # [T]
    rate = expected_rate(torch.tensor(count), seq_len, span_len).item()
    error = 5 * math.sqrt(rate * (1 - rate) / samples)
    # Frames with span_len - 1 frames before them follow the formula; the first frame can be covered by one start only.
    assert (share[span_len - 1:] - rate).abs().max() < error
    assert abs(share[0].item() - count / seq_len) < 5 * math.sqrt(0.25 / samples)
    assert abs(share.mean().item() - rate) < span_len / seq_len + error


@pytest.mark.parametrize("seq_len", [1, 2, 3, 4, 30, 251, 500])
@pytest.mark.parametrize("span_len", [2, 3, 10])
def test_num_starts_is_the_fewest_starts_that_reach_the_rate(seq_len, span_len):
    table = num_starts(torch.arange(101, dtype=torch.float64) / 100, seq_len, span_len)
    assert table.shape == (101,) and table[0] == 1 and table[100] == seq_len
    assert (table.diff() >= 0).all() and table.max() <= seq_len
    wanted = torch.arange(1, 100) / 100
    inner = table[1:100]
    assert (expected_rate(inner, seq_len, span_len) >= wanted.double() - 1e-6).all()
    fewer = expected_rate(inner - 1, seq_len, span_len)
    assert (fewer < wanted.double() + 1e-6).all()


def test_a_length_per_sample_gives_the_same_as_one_length_for_all():
    draw = random.Random(1)
    for span_len in (1, 3, 5):
        lengths = [0, 1, 2, *(draw.randint(3, 300) for _ in range(40))]
        rates = torch.tensor([draw.random() for _ in lengths])
        batch = num_starts(rates, torch.tensor(lengths), span_len, max_len=333)
        assert torch.equal(batch, num_starts(rates, torch.tensor(lengths), span_len))
        for i, length in enumerate(lengths):
            single = num_starts(rates[i:i + 1], length, span_len)
            assert batch[i] == single, f"{span_len=} {length=} rate={rates[i].item()}"


def test_rates_zero_and_one_give_one_start_and_all_frames():
    for seq_len in (1, 2, 5, 480):
        for span_len in (1, 3, 9):
            lowest, highest = num_starts(torch.tensor([0.0, 1.0]), seq_len, span_len).tolist()
            assert (lowest, highest) == (1, seq_len), f"{seq_len=} {span_len=}"
    assert num_starts(torch.tensor([0.0, 1.0]), 0, 3).tolist() == [0, 0]
    assert num_starts(torch.tensor([0.25, 0.2499, 0.2501]), 480, 1).tolist() == [120, 120, 120]


def test_chunk_index_numbers_the_spans_of_a_grid():
    for seq_len in (1, 2, 3, 4, 498, 500):
        for span_len in (1, 3, 7, 600):
            index = chunk_index(seq_len, span_len).tolist()
            assert index == [t // span_len for t in range(seq_len)]


def test_a_span_length_of_zero_is_refused():
    for call in (lambda: dilate(torch.ones(3, dtype=torch.bool), 0), lambda: chunk_index(5, 0),
                 lambda: num_starts(torch.ones(1), 5, 0),
                 lambda: expected_rate(torch.ones(1), 5, 0)):
        with pytest.raises(ValueError, match="span_len"):
            call()
