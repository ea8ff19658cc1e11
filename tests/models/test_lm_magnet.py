"""The model compared with AudioCraft's own MAGNeT on the same weights."""
import copy
import time
import typing as tp
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from magnet_plugin.modules import attention_kernels

from ..helpers.small_models import CARD, K, MagnetLMModel, UpstreamMagnet, build, build_scaled, conditions, twins

VARIANTS = {
    "published": {},
    "memory-efficient": {"memory_efficient": True},
    "biases": {"bias_ff": True, "bias_attn": True, "bias_proj": True},
    "post-norm": {"norm_first": False},
    "layer-scale": {"layer_scale": 0.5},
    "query-key-norm": {"qk_layer_norm": True, "qk_layer_norm_cross": True},
    "rope": {"positional_embedding": "rope"},
    "grouped-keys": {"kv_repeat": 2, "cross_attention": False, "conditioned": False},
    "unrestricted": {"subcodes_context": -1},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_keys_shapes_and_logits_equal_audiocrafts(variant: str) -> None:
    changes = dict(VARIANTS[variant])
    # Biases and memory-efficient attention do not run upstream on a CPU; its weights are compared, not its output.
    runs = variant != "memory-efficient"
    theirs, ours = twins(**changes)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    theirs.load_state_dict(ours.state_dict())
    if not runs:
        return
    tokens = torch.randint(0, CARD + 1, (2, K, 96), generator=torch.Generator().manual_seed(1))
    conditioned = changes.get("conditioned", True)
    texts = conditions("a fast reel", "waltz in d major played on the violin") if conditioned else []
    tensors = ours.embed_conditions(texts) if texts else {}
    for stage in (-1, *range(K)):
        with torch.no_grad():
            expected, got = theirs(tokens, [], tensors, stage=stage), ours(tokens, [], tensors, stage=stage)
        assert got.shape == (2, K, 96, CARD)
        assert expected.std() > 0.3, "logits that hardly vary prove nothing"
        assert (expected - got).abs().max() < 1e-4, stage
        if stage >= 0:
            with torch.no_grad():
                one_stage = ours.stage_logits(tokens, tensors, stage)
            assert (one_stage - got[:, stage]).abs().max() < 1e-5


def test_weights_without_custom_attention_load_from_audiocrafts_model() -> None:
    theirs, ours = (build(klass, custom=False) for klass in (UpstreamMagnet, MagnetLMModel))
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    tokens = torch.randint(0, CARD + 1, (1, K, 20))
    tensors = ours.embed_conditions(conditions("reel"))
    with torch.no_grad():
        assert (theirs(tokens, [], tensors, stage=0) - ours(tokens, [], tensors, stage=0)).abs().max() < 1e-4


@pytest.mark.parametrize("length", [1, 2, 17, 251, 498, 500, 1500])
def test_clips_of_any_length_are_supported_where_audiocraft_needs_multiples_of_eight(length: int) -> None:
    model = build(MagnetLMModel)
    tensors = model.embed_conditions(conditions("reel"))
    with torch.no_grad():
        logits = model.stage_logits(torch.zeros(1, K, length, dtype=torch.long), tensors, 2)
    assert logits.shape == (1, length, CARD) and logits.isfinite().all()


@pytest.mark.parametrize("engine", ["plain", "lean"])
def test_all_layers_of_a_pass_share_the_mask_of_the_context(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built, build_mask = [], attention_kernels._block_mask
    monkeypatch.setattr(attention_kernels, "_block_mask", lambda *args: built.append(args) or build_mask(*args))
    build(MagnetLMModel, num_layers=3).generate(conditions=conditions("reel"), max_gen_len=96, decoding_steps=[1, 2, 1, 1],
                                                engine=engine)
    assert len(built) == 4      # Of the restricted context's stages.


@pytest.mark.parametrize("stage,reach", [(0, 40), (1, 10), (3, 10)])
def test_the_receptive_field_is_the_context_times_the_number_of_layers(stage: int, reach: int) -> None:
    """Two layers with a band of 5 reach 10 frames and no further; the first codebook reaches everything."""
    model = build(MagnetLMModel, bias_attn=True)
    tensors = model.embed_conditions(conditions("reel"))
    length, centre = 41, 20
    tokens = torch.zeros(1, K, length, dtype=torch.long)
    embedded: list[torch.Tensor] = []
    hook = model.emb[0].register_forward_hook(lambda *args: embedded.append(args[2].requires_grad_()) or args[2])
    logits = model.stage_logits(tokens, tensors, stage)
    hook.remove()
    gradient = torch.autograd.grad(logits[0, centre].square().sum(), embedded[0])[0][0].abs().sum(-1)   # [T]
    distance = (torch.arange(length) - centre).abs()
    assert (gradient[distance > reach] == 0).all()
    assert (gradient[distance <= min(reach, 20)] > 0).all()


def test_segment_duration_may_be_fractional_and_invalid_settings_are_refused() -> None:
    assert build(MagnetLMModel, compression_model_framerate=50, segment_duration=2.51).segment_frames == 126
    for changes, word in (({"causal": True}, "transformer_lm.causal"), ({"span_len": 0}, "masking.span_len")):
        with pytest.raises(ValueError, match=word):
            build(MagnetLMModel, **changes)
    model = build(MagnetLMModel)
    with pytest.raises(ValueError, match="3 codebooks"):
        model(torch.zeros(1, 3, 8, dtype=torch.long), conditions("reel"))


def test_threads_that_share_a_model_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generations would share the buffers of the fast path on a GPU; the tokens are those of sequential calls."""
    model = build_scaled(MagnetLMModel)
    decode, running, most = model.decode, [], []

    def watched(generation: tp.Any) -> torch.Tensor:
        running.append(generation)
        time.sleep(0.02)                            # lets the other thread run
        most.append(len(running))
        tokens = decode(generation)
        running.remove(generation)
        return tokens

    def generate(seed: int) -> torch.Tensor:
        return model.generate(conditions=conditions("a fast reel", "a slow waltz")[seed % 2:][:1], max_gen_len=30, seed=seed,
                              decoding_steps=[4, 2, 2, 2])

    expected = [generate(seed) for seed in range(4)]
    monkeypatch.setattr(model, "decode", watched)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(generate, range(4)))
    assert most == [1] * 4
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert not torch.equal(expected[0], expected[2])


def test_a_model_can_be_copied_after_a_generation() -> None:
    model = build_scaled(MagnetLMModel)
    one, other = (lm.generate(max_gen_len=9, num_samples=1, seed=1, decoding_steps=[1, 1, 1, 1])
                  for lm in (model, copy.deepcopy(model)))
    assert torch.equal(one, other)
