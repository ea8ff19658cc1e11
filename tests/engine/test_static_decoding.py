"""Decoding in buffers of fixed shapes, compared with the decoding loop. On a CPU, the steps run without graphs."""
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.magnet import NonFiniteLogits
from magnet_plugin.decoding.options import GenerationOptions
from magnet_plugin.decoding.rescoring import NO_RESCORING
from magnet_plugin.decoding.sampling import Sampler
from magnet_plugin.decoding.span_masker import SpanRule
from magnet_plugin.decoding.steps import Stage, steps_of
from magnet_plugin.engine import forward, kernels
from magnet_plugin.engine.engines import engine_for
from magnet_plugin.engine.forward import Engine, Session
from magnet_plugin.engine.static_decoding import ClipKind, StaticDecoder
from magnet_plugin.engine.text_cache import TextCache
from magnet_plugin.engine.weights import read_weights
from magnet_plugin.modules.guidance import BranchSchedule

from ..helpers.fake_cuda import Launches, fake_cuda
from ..helpers.guided_logits import LENGTH, TEXTS, texts_for
from ..helpers.small_models import CARD, K, MagnetLMModel, build, build_scaled
from ..helpers.triton_kernels import recorded_kernels

STEPS = [6, 4, 3, 3]


@pytest.fixture(scope="module")
def model() -> tp.Any:
    return build_scaled(MagnetLMModel, biases=True)


def tokens(model: tp.Any, static: bool, **settings: tp.Any) -> torch.Tensor:
    engine_for(model, "model", torch.float32).static = static
    arguments = {"max_gen_len": LENGTH, "seed": 3, "decoding_steps": STEPS, **settings}
    return model.generate(conditions=texts_for(model), **arguments)


@pytest.mark.parametrize("settings", [
    {}, {"use_sampling": False}, {"span_arrangement": "nonoverlap"},
    {"span_arrangement": "nonoverlap", "span_scoring": "prod"},
    {"top_p": 0.0, "top_k": 5}, {"top_p": 0.0}, {"guidance_interval": (0.0, 0.8)}, {"max_gen_len": 1}, {"max_gen_len": 2},
    {"max_cfg_coef": 1.0}, {"anneal_temp": False}, {"guidance_every": 2, "span_arrangement": "nonoverlap"}], ids=str)
def test_tokens_equal_those_of_the_decoding_loop(model: tp.Any, settings: dict[str, tp.Any]) -> None:
    expected = tokens(model, False, **settings)
    assert torch.equal(tokens(model, True, **settings), expected)


def test_buffers_are_reused_for_another_seed_text_and_temperature(model: tp.Any) -> None:
    first = tokens(model, True)
    count = len(engine_for(model, "model", torch.float32).decoders)
    for changes in ({"seed": 4}, {"temp": 1.5}, {"max_cfg_coef": 3.0}):
        changed = tokens(model, True, **changes)
        assert torch.equal(changed, tokens(model, False, **changes)) and not torch.equal(changed, first), changes
    assert len(engine_for(model, "model", torch.float32).decoders) == count


@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
def test_known_tokens_anywhere_are_kept_and_samples_may_differ_in_them(model: tp.Any, arrangement: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (len(TEXTS), K, LENGTH)
    known = torch.rand(shape, generator=generator) < torch.tensor([0.0, 0.3, 0.9])[:, None, None]
    clip = KnownTokens(torch.randint(0, CARD, shape, generator=generator), known)
    found = tokens(model, True, known_tokens=clip, span_arrangement=arrangement)
    assert torch.equal(found, tokens(model, False, known_tokens=clip, span_arrangement=arrangement))
    assert torch.equal(found[known], clip.tokens[known]) and found.max() < CARD


class HalfAndHalf:
    """A rescorer that finds the tokens of one half of the vocabulary more likely, depending on the candidate."""
    name = "half and half"

    def scorer(self, conditions: tp.Any, batch: int, cfg_coef: float = 1.0, fill: str = "special") -> tp.Any:
        def score(tokens: torch.Tensor, stage: int) -> torch.Tensor:
            half = (tokens[:, stage] % 2)[..., None] == torch.arange(CARD) % 2
            return torch.softmax(half.float() * 3, dim=-1)

        return score


def test_rescored_tokens_equal_those_of_the_decoding_loop(model: tp.Any) -> None:
    settings = {"rescorer": HalfAndHalf(), "rescorer_weight": 0.4}
    rescored = tokens(model, True, **settings)
    assert torch.equal(rescored, tokens(model, False, **settings))
    assert not torch.equal(rescored, tokens(model, True))


def test_the_error_about_logits_that_are_not_finite_names_stage_and_step(model: tp.Any) -> None:
    broken = build(MagnetLMModel)
    engine = engine_for(broken, "model", torch.float32)
    heads, calls = engine.heads, iter(range(100))
    head = heads[1]
    engine.heads[1] = lambda x: head(x) * (float("nan") if next(calls) == 2 else 1.0)
    with pytest.raises(NonFiniteLogits, match=r"stage 1, step 2 .*max_cfg_coef"):
        tokens(broken, True)


def big_decoder(settings: GenerationOptions, dtype: torch.dtype, layers: int) -> StaticDecoder:
    """A decoder for ten seconds by a model as wide as the published small one, on fake CUDA."""
    with torch.device("cuda"):
        made = build(MagnetLMModel, length=500, dim=1024, num_heads=16, num_layers=layers, card=2048, device="cuda")
    engine = Engine(read_weights(made), made.context, "model", dtype)
    text = TextCache([torch.zeros(2, 1, 16, 64, 64, device="cuda", dtype=dtype)] * layers,
                     [torch.zeros(1, 1, 1024, device="cuda", dtype=dtype)] * layers,
                     torch.zeros(1, 1, 1, 64, device="cuda", dtype=dtype))
    kind = ClipKind((1, K, 500), sum(settings.decoding_steps), SpanRule.of(500, 3, settings),
                    Sampler(settings.use_sampling, settings.top_k, settings.top_p), 2048, settings.guidance_every > 1, False)
    session = Session(engine, text)
    decoder = StaticDecoder(session, kind, None)
    vars(decoder)["owner"] = session        # Which a decoder does not keep alive.
    return decoder


@pytest.fixture(params=[False, True], ids=["pytorch", "triton"])
def with_triton(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Choose the kernels of fake CUDA devices."""
    monkeypatch.setattr(kernels, "available", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
def test_a_step_on_cuda_does_not_synchronize(arrangement: str, with_triton: bool) -> None:
    settings = GenerationOptions(decoding_steps=(2, 2, 2, 2), span_arrangement=arrangement, guidance_every=2)
    stages = [Stage(k, 2 * k, list(steps_of(k, settings)), 500) for k in range(K)]
    steps = [step for stage in stages for step in stage.steps]
    schedule = BranchSchedule(True, settings.guidance_every)
    with fake_cuda(), recorded_kernels():
        decoder = big_decoder(settings, torch.bfloat16, layers=2)
        plan = [schedule.next(step.stage, step.guidance) for step in steps]
        decoder.prepare(zip([step.stage for step in steps], plan))
        with Launches() as launches:
            for stage in stages:
                decoder.begin_stage(stage, settings)
                for step, branches in zip(stage.steps, plan[stage.first:]):
                    decoder.step(step, branches, NO_RESCORING, decoder.kind.sampler)
                decoder.end_stage(stage)
    assert launches.kernels.total() > 0 and not launches.synchronizing


@pytest.mark.parametrize("branches, per_layer, others", [("both", 10, 8), ("conditional", 10, 6)])
def test_launches_of_a_captured_step(branches: tp.Any, per_layer: int, others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels inside the graph of a step, with Triton's kernels and one kernel for each attention."""
    settings = GenerationOptions(decoding_steps=(2, 1, 1, 1))
    monkeypatch.setattr(kernels, "available", lambda device: True)
    attended: list[torch.Tensor] = []

    def attention(q: torch.Tensor, *args: tp.Any, **kwargs: tp.Any) -> torch.Tensor:
        attended.append(q)
        return torch.empty_like(q.transpose(1, 2)).transpose(1, 2)          # As flash attention lays out its result.

    monkeypatch.setattr(forward, "attend", attention)
    found = []
    for layers in (2, 3):
        with fake_cuda(), recorded_kernels() as ours:
            decoder = big_decoder(settings, torch.bfloat16, layers)
            decoder._run(0, branches)                   # Positions are computed once.
            ours.clear()
            attended.clear()
            with Launches() as launches:
                decoder._run(0, branches)
            found.append(launches.kernels.total() + len(ours) + len(attended))
    assert (found[1] - found[0], 3 * found[0] - 2 * found[1]) == (per_layer, others), (found, launches.kernels)


class CountedReplays:
    """Captures nothing, and counts replays."""

    def __init__(self) -> None:
        self.count = 0

    def capture(self, function: tp.Any, reset: tp.Any) -> tp.Any:
        def replay() -> None:
            self.count += 1

        return replay


def test_a_captured_step_is_one_replay_and_launches_nothing_else(with_triton: bool) -> None:
    settings = GenerationOptions(decoding_steps=(2, 1, 1, 1))
    steps = list(steps_of(0, settings))
    with fake_cuda():
        decoder = big_decoder(settings, torch.bfloat16, layers=1)
        decoder._graphs = graphs = CountedReplays()
        decoder.prepare([(0, "both"), (0, "conditional")])
        with Launches() as launches:
            for step, branches in zip(steps, ("both", "conditional")):
                decoder.step(step, branches, NO_RESCORING, decoder.kind.sampler)
    assert graphs.count == 2 and not launches.kernels


def test_reported_masks_equal_those_of_the_decoding_loop(model: tp.Any) -> None:
    reported: dict[bool, list[tuple[int, int, torch.Tensor]]] = {False: [], True: []}
    for static, found in reported.items():
        tokens(model, static, on_step=lambda step, masked, found=found: found.append((step.stage, step.index, masked)))
    assert len(reported[True]) == len(reported[False]) == sum(STEPS)
    for (stage, index, masked), (expected_stage, expected_index, expected) in zip(reported[True], reported[False]):
        assert (stage, index) == (expected_stage, expected_index) and torch.equal(masked, expected), (stage, index)
