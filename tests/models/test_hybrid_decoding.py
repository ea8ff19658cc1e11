"""Generation with the hybrid model: the autoregressive prompt, its KV cache, and the parallel steps that follow."""
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.autoregressive import delay
from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.options import GenerationOptions, PromptOptions
from magnet_plugin.decoding.random_source import GLOBAL
from magnet_plugin.decoding.rescoring import NO_RESCORING
from magnet_plugin.engine.engines import engine_for
from magnet_plugin.models.conditions import embed
from magnet_plugin.models.generation import Generation
from magnet_plugin.models.hybrid_decoder import HybridDecoder
from magnet_plugin.modules.guidance import GuidedPredictor
from magnet_plugin.modules.hybrid_layout import Layout

from ..helpers.guided_logits import cuda_model
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


def decoder_of(model: tp.Any, engine: str, texts: list[tp.Any], batch: int, switch: int) -> tp.Any:
    """The forward passes of a clip."""
    nothing = KnownTokens(torch.zeros(batch, K, T, dtype=torch.long), torch.zeros(batch, K, T, dtype=torch.bool))
    return model._decoder(Generation(nothing, texts, [], GenerationOptions(engine=engine), PromptOptions(), 0, GLOBAL, None,
                                     NO_RESCORING), switch)


@pytest.mark.parametrize("engine", ["plain", "lean"])
@pytest.mark.parametrize("switch, start", [(1, 0), (2, 1), (7, 0), (7, 3), (T, 0), (T + K - 1, T)])
def test_logits_with_the_kv_cache_equal_those_of_the_full_forward_pass(model: tp.Any, engine: str, switch: int, start: int
                                                                       ) -> None:
    """`start` columns are read in one pass."""
    tokens = some_tokens()
    decoder = decoder_of(model, engine, TEXTS, 2, switch)
    assert isinstance(decoder, HybridDecoder) == (engine == "plain")
    doubled, tensors = tokens.repeat(2, 1, 1), embed(model, TEXTS, True)
    layout = Layout.single(switch, 4, T, K)
    with torch.no_grad():
        full = model.joint_logits(doubled, tensors, 1, layout)
        guided = full[2:] + (full[:2] - full[2:]) * 2.5
        columns = delay(tokens, CARD)
        if start:
            decoder.prefill(columns[..., :start])
        for step in range(start, switch):
            logits = decoder.next_logits(columns[..., step], 2.5)
            for k in range(K):
                if 0 <= step - k < T:
                    assert (logits[:, k] - guided[:, k, step - k]).abs().max() < 2e-4, (step, k)
        if switch > T:
            return
        for stage in range(K):
            shown = tokens.masked_fill(~layout.prefix[:2] & (torch.arange(K) >= stage)[:, None], CARD)
            full = model.joint_logits(shown.repeat(2, 1, 1), tensors, stage, layout)
            guided = full[2:] + (full[:2] - full[2:]) * 2.5
            for _ in range(2):                          # a forward pass leaves the cache unchanged
                logits = GuidedPredictor(decoder, True).logits(shown, stage, 2.5, torch.arange(T).expand(2, T))
                free = ~layout.prefix[0, stage]
                assert logits.shape == (2, T, CARD)
                assert free.sum() == 0 or (logits[:, free] - guided[:, stage, free]).abs().max() < 2e-4, stage
                some = torch.tensor([[T - 1, T - 2], [T - 2, T - 1]])
                conditional = decoder(shown, stage, some, both_branches=False)
                expected = full[:2, stage].gather(1, some[..., None].expand(-1, -1, CARD))
                assert not free[some].all() or (conditional - expected).abs().max() < 2e-4, "only the conditional branch"


@pytest.mark.parametrize("engine", ["plain", "lean"])
def test_steps_out_of_order_are_refused(model: tp.Any, engine: str) -> None:
    decoder = decoder_of(model, engine, [], 1, 2)
    special = torch.full((1, K), CARD)
    with torch.no_grad():
        decoder.next_logits(special, 1.0)
        with pytest.raises(ValueError, match="all 2 prompt steps first; only 1"):
            decoder(some_tokens(1), 0, torch.zeros(1, 1).long(), both_branches=False)
        decoder.next_logits(special, 1.0)
        with pytest.raises(ValueError, match="more than 2 times"):
            decoder.next_logits(special, 1.0)
    with pytest.raises(ValueError, match="one per sample"):
        decoder_of(model, engine, TEXTS, 3, 2)


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


@pytest.fixture(params=[False, True], ids=["as on a CPU", "in static buffers"])
def static(request: pytest.FixtureRequest, model: tp.Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Decode as on a GPU, except that the steps are not captured."""
    monkeypatch.setattr(engine_for(model, "model", torch.float32), "static", request.param)
    return request.param


@pytest.mark.parametrize("settings", [
    {}, {"prompt_frames": 1}, {"prompt_frames": 3, "guidance_every": 2}, {"prompt_frames": T}, {"prompt_top_k": 3},
    {"prompt_cfg_coef": 1.0, "prompt_temperature": 0.7}, {"span_arrangement": "nonoverlap", "top_p": 0.0}], ids=str)
def test_tokens_of_the_fast_path_equal_those_of_the_reference_path(model: tp.Any, static: bool, settings: tp.Any) -> None:
    for texts, prompt in ((TEXTS, None), (TEXTS, some_tokens()[..., :6]), ([], some_tokens()[..., :1])):
        for how in ({"seed": 3}, {"use_sampling": False}):
            fast, plain = (model.generate(prompt, texts, num_samples=2, engine=engine,
                                          **{"prompt_frames": 9, **FEW, **settings, **how}) for engine in ("lean", "plain"))
            assert torch.equal(fast, plain) and len(plain.unique()) > 4, (len(texts), how)


def test_known_tokens_anywhere_are_kept_by_the_fast_path(model: tp.Any, static: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    clip = KnownTokens(some_tokens(), torch.rand(2, K, T, generator=generator) < 0.3)
    fast, plain = (model.generate(None, TEXTS, known_tokens=clip, prompt_frames=9, seed=1, engine=engine,
                                  decoding_steps=[4, 3, 2, 2]) for engine in ("lean", "plain"))
    assert torch.equal(fast, plain) and torch.equal(fast[clip.known], clip.tokens[clip.known])


def test_clips_of_other_shapes_and_seeds_do_not_disturb_each_other(model: tp.Any, static: bool) -> None:
    """The same buffers serve them one after another."""
    def tokens(seed: int, frames: int, engine: str = "auto") -> torch.Tensor:
        return model.generate(None, TEXTS, prompt_frames=frames, seed=seed, engine=engine, **FEW)

    calls = [(1, 9), (2, 9), (1, 12), (1, T), (1, 9)]
    assert all(torch.equal(tokens(*call), tokens(*call, engine="plain")) for call in calls)


def test_lower_precision_decodes_after_a_prompt(model: tp.Any) -> None:
    """The first greedy tokens are the same; others may differ."""
    fast, exact = (model.generate(None, TEXTS, prompt_frames=9, use_sampling=False, precision=precision, **FEW)
                   for precision in ("bfloat16", "model"))
    assert torch.equal(fast[..., :1, 0], exact[..., :1, 0]) and fast.shape == exact.shape and fast.max() < CARD


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
                          ({"prompt_frames": 3, "engine": "plain", "precision": "bfloat16"}, "precision=bfloat16"),
                          ({"prompt_frames": 3, "decoding_steps": [1]}, "decoding_steps")):
        with pytest.raises(ValueError, match=word):
            model.generate(None, TEXTS, **{**FEW, **options})
    model.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        model.generate(None, TEXTS, prompt_frames=3, **FEW)
    model.eval()


@pytest.mark.gpu
def test_greedy_tokens_on_cuda_nearly_equal_those_of_the_reference_path(caplog: pytest.LogCaptureFixture) -> None:
    model = cuda_model(klass=HybridMagnetLMModel)
    prompt = some_tokens()[..., :3].cuda()
    for given, n in ((None, 9), (prompt, 6), (None, T)):
        for _ in range(2):                                                  # the second time with captured graphs
            fast, plain = (model.generate(given, TEXTS, prompt_frames=n, use_sampling=False, engine=engine, **FEW)
                           for engine in ("lean", "plain"))
            assert (fast == plain).float().mean() > 0.9
    assert "capturing a CUDA graph failed" not in caplog.text
