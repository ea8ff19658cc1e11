import math
import random
from types import SimpleNamespace

import pytest
import torch

from magnet_plugin.modules.masking import corrupt, hidden, stage_mask
from magnet_plugin.modules.spans import num_starts


def slow_stage_mask(rates, seq_len, span_len, generator, valid):
    """The same mask, built one sample and one span at a time."""
    noise = torch.rand((len(rates), seq_len), generator=generator)
    mask = torch.zeros(len(rates), seq_len, dtype=torch.bool)
    for b in range(len(rates)):
        frames = [t for t in range(seq_len) if valid is None or valid[b, t]]
        count = num_starts(rates[b:b + 1], len(frames), span_len).item()
        for start in sorted(frames, key=lambda t: noise[b, t].item())[:count]:
            for t in range(start, start + span_len):
                if t in frames:
                    mask[b, t] = True
    return mask


def random_valid(batch, seq_len, draw):
    """Consecutive valid frames of each sample: all, without padding at the end, after a switch frame, or none."""
    valid = torch.zeros(batch, seq_len, dtype=torch.bool)
    for row in valid:
        first, last = sorted((draw.randint(0, seq_len), draw.randint(0, seq_len)))
        row[draw.choice([0, first]):draw.choice([last, seq_len])] = True
    return valid


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_stage_mask_equals_a_loop():
    draw = random.Random(0)
    for case in range(60):
        batch, seq_len, span_len = draw.randint(1, 4), draw.randint(1, 60), draw.randint(1, 8)
        rates = torch.tensor([draw.choice([0.0, 1.0, draw.random()]) for _ in range(batch)])
        valid = draw.choice([None, random_valid(batch, seq_len, draw)])
        mask = stage_mask(rates, seq_len, span_len, seeded(case), valid)
        expected = slow_stage_mask(rates, seq_len, span_len, seeded(case), valid)
        assert torch.equal(mask, expected), f"{case=} {batch=} {seq_len=} {span_len=} {rates=} {valid=}"


def test_every_sample_has_a_target_and_padding_is_never_a_target():
    draw = random.Random(1)
    for case in range(200):
        batch, seq_len, span_len = draw.randint(1, 5), draw.randint(1, 80), draw.choice([1, 3, 10, 100])
        rates = torch.rand(batch, generator=seeded(case))
        valid = random_valid(batch, seq_len, draw)
        mask = stage_mask(rates, seq_len, span_len, seeded(case), valid)
        assert not (mask & ~valid).any(), f"{case=}"
        assert torch.equal(mask.any(-1), valid.any(-1)), f"{case=} {seq_len=} {span_len=}"
        everything = stage_mask(torch.ones(batch), seq_len, span_len, seeded(case), valid)
        assert torch.equal(everything, valid), f"{case=} rate 1 leaves a frame"


def test_only_spans_at_the_end_of_the_clip_are_cut():
    mask = stage_mask(torch.rand(50, generator=seeded(0)), 100, 5, seeded(1))
    for row in mask.tolist():
        runs = "".join("x" if masked else " " for masked in row)
        assert all(len(run) >= 5 for run in runs[:-5].rstrip("x").split()), runs


def test_the_mask_depends_on_no_other_random_numbers_than_the_generators():
    rates = torch.tensor([0.3, 0.6, 0.9])
    torch.manual_seed(0)
    first = stage_mask(rates, 200, 3, seeded(5))
    state = torch.get_rng_state()
    assert torch.equal(first, stage_mask(rates, 200, 3, seeded(5)))
    assert torch.equal(state, torch.get_rng_state()), "the global generator was used"
    assert not torch.equal(first, stage_mask(rates, 200, 3, seeded(6)))
    assert not torch.equal(stage_mask(rates, 200, 3), stage_mask(rates, 200, 3))


def test_a_valid_part_is_masked_like_a_clip_of_its_length():
    rates = torch.full((4000,), 0.5)
    valid = torch.zeros(4000, 90, dtype=torch.bool)
    valid[:, 30:] = True
    part = stage_mask(rates, 90, 3, seeded(2), valid)[:, 30:].float().mean(0)
    clip = stage_mask(rates, 60, 3, seeded(3)).float().mean(0)
    assert (part - clip).abs().max() < 5 * math.sqrt(2 * 0.25 / 4000)


@pytest.mark.parametrize("span_len", [1, 3])
@pytest.mark.parametrize("seq_len", [251, 498, 500, 1500])
def test_masks_have_the_distribution_of_audiocrafts(seq_len, span_len):
    from ..helpers.small_models import UpstreamSolver as upstream
    stub = SimpleNamespace(cfg=SimpleNamespace(masking=SimpleNamespace(span_len=span_len)))
    stub._spans_mask = lambda *args: upstream._spans_mask(stub, *args)
    stub._non_spans_mask = lambda *args: upstream._non_spans_mask(stub, *args)
    stub.mean_maskrate_to_u = torch.tensor(upstream._calc_mean_maskrate_to_u_LUT(stub, seq_len))
    percent = torch.arange(101)
    if span_len > 1:
        ours = num_starts(percent / 100, seq_len, span_len)
        assert torch.equal(ours[:100], stub.mean_maskrate_to_u[:100].clamp(min=1))
        assert ours[100] == seq_len and stub.mean_maskrate_to_u[100] == seq_len - span_len + 1

    torch.manual_seed(0)
    rates = torch.cos(torch.rand(3000) * math.pi / 2)
    theirs = upstream._get_mask(stub, rates, len(rates), seq_len, torch.device("cpu")).float()  # [B, T]
    masks = stage_mask(rates, seq_len, span_len, seeded(1)).float()
    assert abs(theirs.mean() - masks.mean()) < 0.002  # the same rates: only the overlaps differ
    # The share of each frame, which shows whether both treat the first frames of a clip alike.
    bound = 5 * math.sqrt(2 * 0.25 / len(rates))
    assert (theirs.mean(0) - masks.mean(0)).abs().max() < bound
    both = (theirs[:, 1:] * theirs[:, :-1]).mean(), (masks[:, 1:] * masks[:, :-1]).mean()
    assert abs(both[0] - both[1]) < 0.005  # pairs of masked neighbours: the spans have the same length


def test_corrupt_hides_masked_frames_and_later_codebooks():
    draw = random.Random(3)
    for case in range(20):
        batch, codebooks, seq_len = draw.randint(1, 3), draw.randint(1, 5), draw.randint(1, 12)
        stage = draw.randrange(codebooks)
        tokens = torch.randint(8, (batch, codebooks, seq_len), generator=seeded(case))
        mask = torch.rand(batch, seq_len, generator=seeded(case)) < 0.5
        before = tokens.clone()
        shown = corrupt(tokens, stage, mask, mask_id=8)
        assert torch.equal(tokens, before)
        for b in range(batch):
            for k in range(codebooks):
                for t in range(seq_len):
                    hide = k > stage or (k == stage and mask[b, t])
                    assert shown[b, k, t] == (8 if hide else tokens[b, k, t]), f"{case=} {stage=} {b=} {k=} {t=}"
        assert torch.equal(shown == 8, hidden(mask, stage, codebooks))


def test_wrong_shapes_are_refused():
    tokens, mask = torch.zeros(2, 4, 10, dtype=torch.long), torch.ones(2, 10, dtype=torch.bool)
    for stage in (-1, 4):
        with pytest.raises(ValueError, match="stage"):
            corrupt(tokens, stage, mask, 8)
    with pytest.raises(ValueError, match="mask"):
        corrupt(tokens, 0, mask[:1], 8)
    with pytest.raises(ValueError, match="rates"):
        stage_mask(torch.ones(2, 1), 10, 3)
    with pytest.raises(ValueError, match="valid"):
        stage_mask(torch.ones(2), 10, 3, valid=mask[:, :9])
