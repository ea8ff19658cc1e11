"""Decoding compared with AudioCraft's own: masks, greedy tokens, and the distribution of sampled tokens."""
import functools
import random

import pytest
import torch
from scipy import stats

from magnet_plugin.decoding import span_masker
from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.magnet import decode
from magnet_plugin.decoding.options import GenerationOptions
from magnet_plugin.decoding.random_source import RandomSource

from ..helpers.oracles import Oracle
from ..helpers.small_models import CARD, K, UpstreamMagnet, build, conditions, twins

STEPS = [6, 4, 3, 3]
UPSTREAM = dict(temp=3.0, top_k=0, max_cfg_coef=10.0, min_cfg_coef=1.0, decoding_steps=STEPS)


def test_overlapping_masks_equal_audiocrafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random scores, span lengths, lengths, targets and kept positions; ten at a time, each with a target of its own."""
    draw = random.Random(0)
    # Kept frames have equal scores, which upstream's unstable sort may order in any way.
    monkeypatch.setattr(torch, "argsort", functools.partial(torch.argsort, stable=True))
    for case in range(60):
        length, span_len, batch = draw.randint(12, 200), draw.randint(2, 6), 10
        generator = torch.Generator().manual_seed(case)
        scores = -torch.rand(batch, length, generator=generator).log()
        kept = torch.rand(batch, length, generator=generator) < draw.choice([0.0, 0.3, 0.8])
        scores = span_masker.keep(scores, kept)
        target = torch.randint(1, length, (batch,), generator=generator)
        masks = span_masker.mask_overlapping(scores, target, span_len)
        model = build(UpstreamMagnet, span_len=span_len)
        for row in range(batch):
            expected = model._least_probable_span_masking(scores[row][None, None], int(target[row]))[0, 0]
            assert torch.equal(masks[row], expected), (case, row, length, span_len, int(target[row]))


@pytest.mark.parametrize("arrangement", ["nonoverlap", "stride1"])
@pytest.mark.parametrize("prompt_frames", [0, 24, 25])
@pytest.mark.parametrize("scoring", ["max", "prod"])
def test_greedy_tokens_equal_audiocrafts(arrangement: str, prompt_frames: int, scoring: str) -> None:
    theirs, ours = twins()
    texts = conditions("a fast reel", "waltz in d major played on the violin")
    prompt = None
    if prompt_frames:
        prompt = torch.randint(0, CARD, (2, K, prompt_frames), generator=torch.Generator().manual_seed(3))
    settings = {**UPSTREAM, "top_p": 0.9, "span_arrangement": arrangement, "span_scoring": scoring, "use_sampling": False}
    expected = theirs.generate(prompt, list(texts), max_gen_len=96, **settings)
    got = ours.generate(prompt, list(texts), max_gen_len=96, text_padding="attended", **settings)
    assert expected.unique().numel() > 20, "too few distinct tokens for a comparison"
    assert torch.equal(expected, got)


def test_both_models_see_the_same_masked_tokens_at_each_step() -> None:
    theirs, ours = twins(seed=4)
    texts = conditions("a slow hornpipe")
    shown: dict[str, list[torch.Tensor]] = {"theirs": [], "ours": []}
    for name, model in (("theirs", theirs), ("ours", ours)):
        hook = model.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: shown[name].append(args[0][:1].clone()), with_kwargs=True)
        plain = {"engine": "plain"} if name == "ours" else {}           # the engine never calls the model
        model.generate(None, list(texts), max_gen_len=96, use_sampling=False, span_arrangement="stride1", top_p=0.0,
                       **UPSTREAM, **plain)
        hook.remove()
    assert len(shown["ours"]) == sum(STEPS)
    for step, (expected, got) in enumerate(zip(shown["theirs"], shown["ours"], strict=True)):
        assert torch.equal(expected, got), step


@pytest.mark.parametrize("arrangement", ["nonoverlap", "stride1"])
@pytest.mark.parametrize("truncation", [{"top_p": 0.8}, {"top_k": 5, "top_p": 0.0}, {"top_p": 0.0}])
def test_sampled_tokens_have_the_distribution_of_audiocrafts(arrangement: str, truncation: dict) -> None:
    """Token counts per stage under the same oracle logits; chi-square at p > 1e-4, seeds fixed."""
    length, card, batch = 24, 8, 400
    oracle = 1.5 * torch.randn(K, length, card, generator=torch.Generator().manual_seed(5))
    theirs = build(UpstreamMagnet, length=length, card=card, conditioned=False)

    def upstream_logits(sequence: torch.Tensor, *args: object, stage: int, **kwargs: object) -> torch.Tensor:
        return oracle[None].expand(len(sequence), -1, -1, -1)

    theirs.forward = upstream_logits
    settings = {**UPSTREAM, "top_p": 0.0, "decoding_steps": [4, 3, 2, 2], "span_arrangement": arrangement, **truncation}
    torch.manual_seed(6)
    # Upstream cannot decode without conditions; the oracle gives both rows of guidance the same logits.
    theirs.condition_provider.tokenize = lambda conditions: {}
    theirs.condition_provider.forward = lambda tokenized: {"description": None}
    expected = theirs.generate(None, conditions(*["x"] * batch), max_gen_len=length, **settings)
    given = KnownTokens(torch.zeros(batch, K, length, dtype=torch.long), torch.zeros(batch, K, length, dtype=torch.bool))
    got = decode(Oracle(lambda tokens, stage, scale: oracle[stage][None].expand(batch, -1, -1)), given,
                 GenerationOptions(**settings), mask_id=card, span_len=3, random=RandomSource.seeded(range(batch)))
    for stage in range(K):
        # Positions differ in their logits: count (position, token) pairs, rare ones pooled.
        counts = torch.stack([torch.stack([(tokens[:, stage] == token).sum(0) for token in range(card)])
                              for tokens in (expected, got)]).flatten(1).numpy()
        common = counts[:, counts.sum(0) >= 20]
        p_value = stats.chi2_contingency(common[:, common.sum(0) > 0]).pvalue
        assert p_value > 1e-4, (stage, p_value)
