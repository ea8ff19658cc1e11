"""Generation with the hybrid model: the autoregressive prompt, its KV cache, and the parallel steps that follow."""
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.autoregressive import column
from magnet_plugin.models.lm_hybrid import HybridDecoder
from magnet_plugin.modules.guidance import GuidedPredictor
from magnet_plugin.modules.hybrid_layout import Layout

from ..helpers.small_models import (
    CARD,
    HybridMagnetLMModel,
    K,
    MagnetLMModel,
    UpstreamMusicGen,
    build_scaled,
    conditions,
)

T = 22
TEXTS = conditions("a fast reel", "waltz in d major played on the violin")
FEW: dict[str, tp.Any] = {"decoding_steps": [4, 3, 2, 2], "max_gen_len": T}


@pytest.fixture(scope="module")
def model() -> tp.Any:
    return build_scaled(HybridMagnetLMModel)


def some_tokens(batch: int = 2) -> torch.Tensor:
    return torch.randint(0, CARD, (batch, K, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("switch", [1, 2, 7, T, T + K - 1])
def test_logits_with_the_kv_cache_equal_those_of_the_full_forward_pass(model: tp.Any, switch: int) -> None:
    tokens = some_tokens()
    decoder = HybridDecoder(model, TEXTS, 2, switch, T)
    doubled = tokens.repeat(2, 1, 1)
    layout = Layout.single(switch, 4, T, K)
    with torch.no_grad():
        full = model.joint_logits(doubled, decoder.tensors, 1, layout)
        guided = full[2:] + (full[:2] - full[2:]) * 2.5
        for step in range(switch):
            logits = decoder.next_logits(column(tokens, step, CARD), 2.5)
            for k in range(K):
                if 0 <= step - k < T:
                    assert (logits[:, k] - guided[:, k, step - k]).abs().max() < 2e-4, (step, k)
        if switch > T:
            return
        for stage in range(K):
            shown = tokens.masked_fill(~layout.prefix[:2] & (torch.arange(K) >= stage)[:, None], CARD)
            full = model.joint_logits(shown.repeat(2, 1, 1), decoder.tensors, stage, layout)
            guided = full[2:] + (full[:2] - full[2:]) * 2.5
            for _ in range(2):                          # a forward pass leaves the cache unchanged
                logits = GuidedPredictor(decoder.forward, True).logits(shown, stage, 2.5, torch.arange(T).expand(2, T))
                free = ~layout.prefix[0, stage]
                assert logits.shape == (2, T, CARD)
                assert free.sum() == 0 or (logits[:, free] - guided[:, stage, free]).abs().max() < 2e-4, stage
                some = torch.tensor([[T - 1, T - 2], [T - 2, T - 1]])
                conditional = decoder.forward(shown, stage, some, both_branches=False)
                expected = full[:2, stage].gather(1, some[..., None].expand(-1, -1, CARD))
                assert not free[some].all() or (conditional - expected).abs().max() < 2e-4, "only the conditional branch"


def test_steps_out_of_order_are_refused(model: tp.Any) -> None:
    decoder = HybridDecoder(model, [], 1, 2, T)
    special = torch.full((1, K), CARD)
    with torch.no_grad():
        decoder.next_logits(special, 1.0)
        with pytest.raises(ValueError, match="all 2 prompt steps first; only 1"):
            decoder.forward(some_tokens(1), 0, torch.zeros(1, 1).long(), both_branches=False)
        decoder.next_logits(special, 1.0)
        with pytest.raises(ValueError, match="more than 2 times"):
            decoder.next_logits(special, 1.0)
    with pytest.raises(ValueError, match="one per sample"):
        HybridDecoder(model, TEXTS, 3, 2, T)


def test_greedy_tokens_of_a_fully_autoregressive_clip_equal_audiocrafts_musicgen(model: tp.Any) -> None:
    theirs = build_scaled(UpstreamMusicGen, seed=5)
    theirs.load_state_dict(model.state_dict())
    for texts, prompt in ((TEXTS, None), (TEXTS, some_tokens()[..., :5])):
        expected = theirs.generate(prompt, texts, max_gen_len=T, use_sampling=False, cfg_coef=3.0)
        got = model.generate(prompt, texts, prompt_frames=T, use_sampling=False, text_padding="attended", **FEW)
        assert torch.equal(got, expected) and len(got.unique()) > 4


def test_without_a_prompt_tokens_equal_those_of_a_magnet_in_either_engine(model: tp.Any) -> None:
    plain = build_scaled(MagnetLMModel, seed=5)
    plain.load_state_dict(model.state_dict())
    for engine in ("lean", "plain"):
        assert torch.equal(model.generate(None, TEXTS, seed=3, engine=engine, **FEW),
                           plain.generate(None, TEXTS, seed=3, engine=engine, **FEW))


@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
def test_the_prompt_is_kept_and_the_rest_is_filled_in_parallel(model: tp.Any, arrangement: str) -> None:
    whole = model.generate(None, TEXTS, prompt_frames=T, seed=4, **FEW)
    calls: list[tuple[int, int]] = []
    got = model.generate(None, TEXTS, prompt_frames=9, seed=4, span_arrangement=arrangement,
                         callback=lambda done, total: calls.append((done, total)), **FEW)
    prefix = Layout.single(9, 2, T, K).prefix
    assert got.shape == (2, K, T) and got.min() >= 0 and got.max() < CARD
    assert torch.equal(got[prefix], whole[prefix]), "one seed gives one prompt"
    assert not torch.equal(got, whole)
    assert calls == [(i, 9 + 11) for i in range(1, 21)]
    assert torch.equal(got, model.generate(None, TEXTS, prompt_frames=9, seed=4, span_arrangement=arrangement, **FEW))
    assert not torch.equal(got, model.generate(None, TEXTS, prompt_frames=9, seed=5, span_arrangement=arrangement, **FEW))


@pytest.mark.parametrize("n", [1, 2, 4, 5, T - 1, T, T + 9])
def test_a_prompt_of_any_length_continues_a_given_prompt(model: tp.Any, n: int) -> None:
    prompt = some_tokens()[..., :6]
    got = model.generate(prompt, TEXTS, prompt_frames=n, seed=1, **FEW)
    assert torch.equal(got[..., :6], prompt) and got.max() < CARD and got.shape[-1] == T
    assert torch.equal(model.generate(prompt, TEXTS, prompt_frames=n, seed=1, remove_prompts=True, **FEW), got[..., 6:])
    unconditional = model.generate(num_samples=3, prompt_frames=n, seed=1, **FEW)
    assert unconditional.shape == (3, K, T) and unconditional.max() < CARD


def test_prompt_frames_are_counted_after_those_that_are_given(model: tp.Any) -> None:
    """After six given frames and four generated ones, greedy tokens equal those of the fully autoregressive clip."""
    prompt = some_tokens()[..., :6]
    whole, part = (model.generate(prompt, TEXTS, prompt_frames=n, use_sampling=False, **FEW) for n in (T, 4))
    prefix = Layout.single(10, 2, T, K).prefix
    assert torch.equal(part[prefix], whole[prefix]) and not torch.equal(part, whole)


def test_the_prompt_has_its_own_guidance_scale_and_one_means_no_guidance(model: tp.Any) -> None:
    def prompts(**options: tp.Any) -> torch.Tensor:
        return model.generate(None, TEXTS, prompt_frames=T, use_sampling=False, **options, **FEW)

    theirs = build_scaled(UpstreamMusicGen, seed=5)
    theirs.load_state_dict(model.state_dict())
    assert torch.equal(prompts(prompt_cfg_coef=1.0, text_padding="attended"),
                       theirs.generate(None, TEXTS, max_gen_len=T, use_sampling=False, cfg_coef=1.0))
    assert not torch.equal(prompts(prompt_cfg_coef=1.0), prompts(prompt_cfg_coef=3.0))


def test_invalid_settings_are_refused_by_name(model: tp.Any) -> None:
    for options, word in (({"prompt_frames": -1}, "prompt_duration"), ({"prompt_cfg_coef": -1}, "prompt_cfg_coef"),
                          ({"prompt_temperature": 0}, "prompt_temperature"), ({"prompt_top_k": -1}, "prompt_top_k"),
                          ({"prompt_frames": 3, "top_p": 2}, "top_p"),
                          ({"prompt_frames": 3, "engine": "lean"}, "engine=lean"),
                          ({"prompt_frames": 3, "precision": "bfloat16"}, "precision=bfloat16"),
                          ({"prompt_frames": 3, "decoding_steps": [1]}, "decoding_steps")):
        with pytest.raises(ValueError, match=word):
            model.generate(None, TEXTS, **{**FEW, **options})
    model.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        model.generate(None, TEXTS, prompt_frames=3, **FEW)
    model.eval()
