"""Autoregressive steps in buffers of fixed shapes. `tests/models/test_hybrid_decoding.py` compares their tokens."""
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.magnet import NonFiniteLogits
from magnet_plugin.decoding.options import GenerationOptions, PromptOptions
from magnet_plugin.decoding.sampling import Sampler
from magnet_plugin.decoding.span_masker import SpanRule
from magnet_plugin.engine import kernels, static_prompt
from magnet_plugin.engine.causal import CausalSession, HybridSession
from magnet_plugin.engine.engines import engine_for
from magnet_plugin.engine.forward import Engine, Session
from magnet_plugin.engine.kv_cache import AddedMask
from magnet_plugin.engine.static_decoding import ClipKind, StaticDecoder
from magnet_plugin.engine.static_prompt import StaticPrompt
from magnet_plugin.engine.text_cache import TextCache
from magnet_plugin.engine.weights import read_weights

from ..helpers.fake_cuda import Launches, fake_cuda
from ..helpers.small_models import CARD, HybridMagnetLMModel, K, build, build_scaled
from ..helpers.triton_kernels import recorded_kernels

STEPS = 50
SAMPLER = Sampler(True, 250)


def big_session(layers: int) -> Session:
    """A model as wide as the published small one, on fake CUDA."""
    with torch.device("cuda"):
        made = build(HybridMagnetLMModel, length=500, dim=1024, num_heads=16, num_layers=layers, card=2048, device="cuda")
    engine = Engine(read_weights(made), made.context, "model", torch.bfloat16)
    text = TextCache([torch.zeros(2, 1, 16, 64, 64, device="cuda", dtype=torch.bfloat16)] * layers,
                     [torch.zeros(1, 1, 1024, device="cuda", dtype=torch.bfloat16)] * layers,
                     torch.zeros(1, 1, 1, 64, device="cuda", dtype=torch.bfloat16))
    return Session(engine, text)


def big_prompt(guided: bool, layers: int) -> StaticPrompt:
    """One second of ten."""
    session = CausalSession(big_session(layers), 1, guided, STEPS)
    prompt = StaticPrompt(session, (1, K, 500), STEPS, None)
    vars(prompt)["owner"] = session         # Which a prompt does not keep alive.
    return prompt


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("triton", [False, True])
def test_a_step_on_cuda_neither_synchronizes_nor_grows(guided: bool, triton: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step launches the same kernels. The only concatenation is that of the codebooks' logits."""
    monkeypatch.setattr(kernels, "available", lambda device: triton)
    with fake_cuda(), recorded_kernels():
        prompt = big_prompt(guided, layers=2)
        prompt.prepare(SAMPLER)
        found = []
        for _ in range(3):
            with Launches() as launches:
                prompt.step(SAMPLER)
            found.append(launches.kernels)
            assert launches.kernels.total() > 0 and not launches.synchronizing
    assert found[0] == found[1] == found[2] and found[0]["cat"] == 1


@pytest.mark.parametrize("guided", [False, True])
def test_a_clip_on_cuda_begins_with_one_copy_from_the_host(guided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known frames are read in one pass over the columns before them."""
    monkeypatch.setattr(kernels, "available", lambda device: False)
    with fake_cuda(), torch.device("cuda"):
        prompt = big_prompt(guided, layers=2)
        prompt.prepare(SAMPLER)
        known = KnownTokens(torch.zeros(1, K, 500, dtype=torch.long), torch.zeros(1, K, 500, dtype=torch.bool))
        with Launches() as launches, torch.device("cpu"):
            prompt.begin(vars(prompt)["owner"], known, PromptOptions(), CARD, 20, SAMPLER)
    assert launches.synchronizing == ["copy_"] and prompt.session.steps == 20


@pytest.mark.parametrize("switch", [2, STEPS])
@pytest.mark.parametrize("stage", [0, 1])
def test_parallel_steps_after_the_switch_neither_synchronize_nor_concatenate(stage: int, switch: int,
                                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "available", lambda device: False)
    options = GenerationOptions(decoding_steps=(2, 2, 2, 2))
    with fake_cuda():
        session = HybridSession(big_session(layers=2), 1, True, switch, 500, 5)
        session.steps = switch
        kind = ClipKind((1, K, 500), 8, SpanRule.of(500, 3, options), Sampler(True, 0, 0.9), 2048, False, False)
        decoder = StaticDecoder(session, kind, None)
        decoder._run(stage, "both")                 # The mask of restricted attention is made once.
        with Launches() as step:
            decoder._run(stage, "both")
        with Launches() as forward:
            logits = [decoder.session.logits(decoder.tokens, stage, both) for both in (False, True)]
    assert [x.shape for x in logits] == [(1, 500, 2048), (2, 500, 2048)] and logits[0].dtype == torch.float32
    assert step.kernels.total() > forward.kernels.total() / 2 > 0 and not step.synchronizing
    assert not forward.synchronizing and not forward.kernels["cat"]
    mask = tp.cast(AddedMask, session._contexts[1]).mask
    assert mask.dtype == torch.bfloat16 and mask.stride(-2) % 8 == 0, "as CUDA kernels require"


def test_launches_of_a_captured_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels inside the graph of a step, with Triton's kernels and one kernel for each attention."""
    monkeypatch.setattr(kernels, "available", lambda device: True)
    attended: list[torch.Tensor] = []

    def attention(q: torch.Tensor, *args: tp.Any, **kwargs: tp.Any) -> torch.Tensor:
        attended.append(q)
        return torch.empty_like(q.transpose(1, 2)).transpose(1, 2)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    found = []
    for layers in (2, 3):
        with fake_cuda(), recorded_kernels() as ours:
            prompt = big_prompt(True, layers)
            prompt.prepare(SAMPLER)
            attended.clear()
            with Launches() as launches:
                prompt.step(SAMPLER)
            found.append(launches.kernels.total() + len(ours) + len(attended))
    assert (found[1] - found[0], 3 * found[0] - 2 * found[1]) == (11, 19), (found, launches.kernels)


class CountedReplays:
    """Captures nothing, and counts replays."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def capture(self, function: tp.Any, reset: tp.Any) -> tp.Any:
        self.captured += 1

        def replay() -> None:
            self.replayed += 1

        return replay


def test_one_graph_serves_all_steps_settings_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another sampler is another graph."""
    graphs = CountedReplays()
    with fake_cuda():
        prompt = big_prompt(True, layers=1)
        prompt._graphs = graphs                                                # type: ignore[assignment]
        for sampler in (SAMPLER, SAMPLER, Sampler(False)):
            prompt.prepare(sampler)
        with Launches() as launches:
            for _ in range(5):
                prompt.step(SAMPLER)
    assert (graphs.captured, graphs.replayed) == (2, 5) and not launches.kernels


def greedy_tokens(model: tp.Any, known: tp.Optional[KnownTokens] = None) -> torch.Tensor:
    """Greedy tokens of a clip of 20 frames, decoded autoregressively in static buffers."""
    known = known or KnownTokens(torch.zeros(2, K, 20, dtype=torch.long), torch.zeros(2, K, 20, dtype=torch.bool))
    engine = engine_for(model, "model", torch.float32)
    engine.static = True
    with torch.no_grad():
        session = CausalSession(engine.session(None), 2, False, 23)
        return static_prompt.decode_prompt(session, known, 23, PromptOptions(), Sampler(False), special=CARD).tokens


def test_an_error_about_logits_names_the_step_and_does_not_spoil_the_next_clip() -> None:
    model = build_scaled(HybridMagnetLMModel, conditioned=False)
    expected = greedy_tokens(model)
    engine = engine_for(model, "model", torch.float32)
    linear, calls = engine.layers[0].qkv, iter(range(100))
    engine.layers[0].qkv = lambda x: linear(x) * (float("nan") if next(calls) == 7 else 1.0)
    with pytest.raises(NonFiniteLogits, match="prompt step 7 .*prompt_cfg_coef"):
        greedy_tokens(model)
    assert any(not x.isfinite().all() for x in engine.kv_cache(2, 2, 23).layers), "the cache is that of the last clip"
    assert torch.equal(greedy_tokens(model), expected)


def test_caches_are_reused_and_the_oldest_is_dropped() -> None:
    engine = engine_for(build(HybridMagnetLMModel, conditioned=False), "model", torch.float32)
    assert engine.kv_cache(1, 1, 9) is not engine.kv_cache(1, 1, 9), "each clip has its own, unless buffers are static"
    engine.static = True
    caches = [engine.kv_cache(1, 1, columns) for columns in (9, 16, 17, 32)]
    assert caches[0] is caches[1] and caches[2] is not caches[0] and caches[0].layers[1].shape == (2, 1, 4, 16, 16)
    for batch in (2, 3):
        engine.kv_cache(batch, 2 * batch, 9)
    assert engine.kv_cache(1, 1, 17) is caches[2]
    engine.kv_cache(4, 8, 9)
    assert engine.kv_cache(1, 1, 17) is caches[2] and engine.kv_cache(1, 1, 16) is not caches[0]
