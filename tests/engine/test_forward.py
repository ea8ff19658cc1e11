"""The fast path against the reference path: logits, tokens, and unsupported models."""
import logging
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.options import GenerationOptions
from magnet_plugin.engine.cuda_graphs import CudaGraphCache
from magnet_plugin.engine.forward import engine_for
from magnet_plugin.models import predictors
from magnet_plugin.models.predictors import predictor
from tests.helpers.small_models import MagnetLMModel, build, conditions
from tests.helpers.weights import scale_weights

LENGTH = 50
TEXTS = ("a reel in D", "a slow long waltz on the flute with a drone", None)
VARIANTS: dict[str, dict[str, tp.Any]] = {
    "plain": {}, "biases": {"bias_attn": True, "bias_ff": True, "bias_proj": True}, "layer scale": {"layer_scale": 0.3},
    "three layers": {"num_layers": 3}, "one layer": {"num_layers": 1}, "torch's own attention": {"custom": False},
    "no text": {"conditioned": False}, "no restriction": {"subcodes_context": -1}, "relu": {"activation": "relu"},
    "no last norm": {"two_norms": None},
}


def lively(**changes: tp.Any) -> tp.Any:
    """A model whose outputs vary, with biases that matter."""
    changes.pop("two_norms", None)
    return scale_weights(build(MagnetLMModel, **changes), biases=True)


def texts_for(model: tp.Any, texts: tp.Sequence[tp.Optional[str]] = TEXTS) -> list[tp.Any]:
    return conditions(*texts) if model.condition_provider.conditioners else []


@pytest.fixture(params=VARIANTS, ids=lambda name: name.replace(" ", "-"))
def model(request: pytest.FixtureRequest) -> tp.Any:
    made = lively(**VARIANTS[request.param])
    if "two_norms" in VARIANTS[request.param]:
        made.out_norm = None
    return made


@torch.no_grad()
def logits(model: tp.Any, seed: int = 0, texts: tp.Sequence[tp.Optional[str]] = TEXTS, **options: tp.Any
           ) -> list[torch.Tensor]:
    """Guided logits of all stages and three coefficients, at some frames and at all."""
    generator = torch.Generator().manual_seed(seed)
    predict = predictor(model, texts_for(model, texts), len(TEXTS), GenerationOptions(**options))
    found, device = [], next(model.parameters()).device
    for stage in range(model.n_q):
        tokens = torch.randint(0, model.card + 1, (len(TEXTS), model.n_q, LENGTH), generator=generator)
        some = torch.stack([torch.randperm(LENGTH, generator=generator)[:17] for _ in TEXTS]).to(device)
        tokens, every = tokens.to(device), torch.arange(LENGTH, device=device).expand(len(TEXTS), LENGTH)
        for guidance in (1.0, 3.0, 10.0):
            found += [predict.logits(tokens, stage, guidance, frames) for frames in (some, every)]
    return [x.cpu() for x in found]


def off(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Largest difference, as a share of the largest logit."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(one, other))


def test_logits_equal_the_reference_path(model: tp.Any) -> None:
    assert off(logits(model, engine="lean"), logits(model, engine="plain")) < 1e-5


@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
@pytest.mark.parametrize("prompt_frames", [0, 10])
def test_tokens_equal_the_reference_path(model: tp.Any, arrangement: str, prompt_frames: int) -> None:
    prompt = torch.randint(0, model.card, (len(TEXTS), model.n_q, prompt_frames), generator=torch.Generator().manual_seed(1))
    for settings in ({"use_sampling": False}, {"seed": 3}):
        lean, plain = (model.generate(prompt, texts_for(model), max_gen_len=LENGTH, decoding_steps=[6, 4, 3, 3],
                                      engine=engine, span_arrangement=arrangement, **settings)
                       for engine in ("lean", "plain"))
        assert plain.unique().numel() > 6
        assert torch.equal(lean, plain), settings


def test_unconditional_source_that_is_not_constant() -> None:
    """If the keys of the unconditional branch differ, its cross-attention is not constant and has to be computed."""
    model = lively()
    inner = model.condition_provider.conditioners["description"]
    forward = inner.forward
    inner.forward = lambda tokenized: (forward(tokenized)[0] + torch.linspace(0, 1, forward(tokenized)[0].shape[1])[:, None],
                                       forward(tokenized)[1])
    assert off(logits(model, engine="lean"), logits(model, engine="plain")) < 1e-5


@pytest.mark.parametrize("precision,bound", [("bfloat16", 0.01), ("int8", 0.05)])
def test_lower_precision_stays_close(precision: str, bound: float) -> None:
    """As a share of the largest logit, without guidance, which multiplies the error."""
    model = build(MagnetLMModel)            # its weights as they are: six times larger ones would saturate
    error = off(logits(model, engine="lean", precision=precision)[::6], logits(model, engine="plain")[::6])
    assert 1e-5 < error < bound


def test_weights_of_16_bits() -> None:
    model = build(MagnetLMModel)
    exact = logits(model, engine="plain")
    model.bfloat16()
    lean, plain = logits(model, engine="lean"), logits(model, engine="plain")
    assert 1e-5 < off(lean[::6], exact[::6]) < 0.05                         # without guidance, which multiplies the error
    assert off(lean, exact) < 2 * off(plain, exact)


def test_autocast_decides_the_dtype_of_linear_layers() -> None:
    model = build(MagnetLMModel)
    exact = logits(model, engine="lean")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert 1e-5 < off(logits(model, engine="lean"), exact) < 0.05


def test_changed_weights_rebuild_the_engine() -> None:
    model = lively()
    before = logits(model, engine="lean")
    assert engine_for(model, "model", torch.float32) is engine_for(model, "model", torch.float32)
    model.load_state_dict(lively(seed=5).state_dict())
    assert off(logits(model, engine="lean"), logits(model, engine="plain")) < 1e-5
    assert off(logits(model, engine="lean"), before) > 0.1


@pytest.mark.parametrize("changes,named", [({"norm_first": False}, "norm_first"), ({"positional_embedding": "rope"}, "rope"),
                                           ({"qk_layer_norm": True}, "qk_layer_norm"), ({"kv_repeat": 2}, "kv_repeat")])
def test_unsupported_models_are_refused_or_take_the_reference_path(changes: dict[str, tp.Any], named: str,
                                                                   caplog: pytest.LogCaptureFixture) -> None:
    model = build(MagnetLMModel, conditioned=False, **changes)
    with pytest.raises(ValueError, match=f"{named}.*set engine=plain"):
        model.generate(max_gen_len=9, engine="lean")
    with pytest.raises(ValueError, match=named):
        model.generate(max_gen_len=9, precision="bfloat16")
    with caplog.at_level(logging.INFO, logger="magnet_plugin"):
        tokens = model.generate(max_gen_len=9, use_sampling=False)
    assert named in caplog.text and "engine=plain" in caplog.text
    assert torch.equal(tokens, model.generate(max_gen_len=9, use_sampling=False, engine="plain"))


def test_float16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="precision=float16 is slow on a CPU; set precision=bfloat16"):
        lively().generate(conditions=conditions(*TEXTS), max_gen_len=9, precision="float16")


class Counting:
    """Stands in for CUDA graphs: fixed buffers in, a fixed buffer out."""

    def __init__(self) -> None:
        self.captured, self.replayed = 0, 0

    def __call__(self, function: tp.Any, buffers: tp.Any) -> tp.Any:
        output = function(*buffers)
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            output.copy_(function(*buffers))

        return replay, output


def test_captured_graphs_give_the_same_logits_and_are_reused() -> None:
    model = lively()
    plain = logits(model, engine="plain")
    engine, capture = engine_for(model, "model", torch.float32), Counting()
    engine.varying_shapes, engine.graphs = False, CudaGraphCache(capture)
    assert off(logits(model, engine="lean"), plain) < 1e-5
    # Kinds of step: full or band, with and without the unconditional branch.
    assert (capture.captured, capture.replayed) == (4, 24)
    assert off(logits(model, seed=1, engine="lean"), logits(model, seed=1, engine="plain")) < 1e-5
    assert (capture.captured, capture.replayed) == (4, 48)
    other = {"seed": 1, "texts": TEXTS[::-1]}                   # Same shapes: the graphs have to read the new text.
    assert off(logits(model, engine="lean", **other), logits(model, engine="plain", **other)) < 1e-5
    assert (capture.captured, capture.replayed) == (4, 72)


def test_graph_cache_copies_changed_inputs_and_evicts_the_oldest() -> None:
    capture = Counting()
    graphs = CudaGraphCache(capture, capacity=2)
    fixed, one = torch.ones(3), torch.zeros(3)
    add = torch.add
    assert graphs("a", add, fixed, one).tolist() == [1, 1, 1]
    one += 1
    assert graphs("a", add, fixed, one).tolist() == [2, 2, 2]
    fixed.mul_(5)
    assert graphs("a", add, fixed, one).tolist() == [6, 6, 6]
    graphs("b", add, fixed, one), graphs("a", add, fixed[:1], one[:1])
    assert (capture.captured, len(graphs)) == (3, 2)
    graphs("a", add, fixed, one)
    assert capture.captured == 4


def test_failed_capture_warns_once_and_runs_without_graphs(caplog: pytest.LogCaptureFixture) -> None:
    def fail(function: tp.Any, buffers: tp.Any) -> tp.Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = CudaGraphCache(fail)
    for _ in range(2):
        assert graphs("a", torch.add, torch.ones(1), torch.ones(1)).item() == 2
    assert caplog.text.count("CUDA graphs are disabled") == 1 and "not permitted" in caplog.text


def test_no_unconditional_branch_where_it_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step of a stage, steps outside of the interval and steps in between only compute the conditional branch."""
    model = lively()
    seen: list[bool] = []
    original = predictors._reference_forward

    def watched(model: tp.Any, tensors: tp.Any) -> tp.Any:
        forward = original(model, tensors)
        return lambda tokens, stage, frames, both: seen.append(both) or forward(tokens, stage, frames, both)

    monkeypatch.setattr(predictors, "_reference_forward", watched)
    for options, expected in (({}, [1, 1, 1, 0]), ({"guidance_interval": (0, 0.9)}, [0, 1, 1, 0]),
                              ({"guidance_every": 2}, [1, 0, 1, 0]), ({"min_cfg_coef": 2.0}, [1, 1, 1, 1]),
                              ({"min_cfg_coef": 1.0, "max_cfg_coef": 1.0}, [0, 0, 0, 0])):
        seen.clear()
        model.generate(conditions=conditions(*TEXTS), max_gen_len=20, decoding_steps=[4, 4, 4, 4], engine="plain", **options)
        assert seen == [bool(x) for x in expected] * 4, options


def test_the_difference_of_the_last_step_is_reused() -> None:
    """With guidance_every=2, the second of two equal steps gives what the first gave."""
    model = lively()
    predict = predictor(model, conditions(*TEXTS), 3, GenerationOptions(guidance_every=2))
    tokens = torch.randint(0, model.card, (3, model.n_q, LENGTH), generator=torch.Generator().manual_seed(0))
    everywhere = torch.arange(LENGTH).expand(3, LENGTH)
    with torch.no_grad():
        first = predict.logits(tokens, 1, 4.0, everywhere)
        second = predict.logits(tokens, 1, 4.0, everywhere[:, 5:9])
        other_stage = predict.logits(tokens, 2, 4.0, everywhere)
        fresh = predictor(model, conditions(*TEXTS), 3, GenerationOptions()).logits(tokens, 2, 4.0, everywhere)
    assert torch.allclose(first[:, 5:9], second, rtol=1e-4, atol=1e-3)
    assert torch.allclose(other_stage, fresh)


@pytest.mark.parametrize("wrong,named", [({"engine": "fast"}, "engine='fast'"), ({"precision": "int4"}, "precision='int4'"),
                                         ({"guidance_interval": (0.9, 0.1)}, "guidance_interval"),
                                         ({"guidance_interval": 3}, "guidance_interval=3"),
                                         ({"guidance_every": 0}, "guidance_every"),
                                         ({"engine": "plain", "precision": "int8"}, "engine=plain")])
def test_bad_options(wrong: dict[str, tp.Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        GenerationOptions(**wrong)


def on_cuda(dtype: torch.dtype = torch.float32, **changes: tp.Any) -> tp.Any:
    model = lively(**changes).to("cuda", dtype)
    model.condition_provider.device = "cuda"
    for conditioner in model.condition_provider.conditioners.values():
        conditioner.to("cuda", dtype)
    return model


@pytest.mark.gpu
@pytest.mark.parametrize("dtype,bound", [(torch.float32, 1e-3), (torch.float16, 0.1), (torch.bfloat16, 0.2)])
def test_cuda_graphs_give_the_models_logits(dtype: torch.dtype, bound: float, caplog: pytest.LogCaptureFixture) -> None:
    model = on_cuda(dtype)
    plain = logits(model, engine="plain")
    for _ in range(2):                              # captured, then replayed
        assert off(logits(model, engine="lean"), plain) < bound
    assert len(engine_for(model, "model", dtype).graphs) == 4 and "CUDA graphs are disabled" not in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
def test_greedy_tokens_on_cuda(arrangement: str) -> None:
    model = on_cuda()
    settings: dict[str, tp.Any] = {"use_sampling": False, "span_arrangement": arrangement, "decoding_steps": [6, 4, 3, 3]}
    lean, plain = (model.generate(conditions=conditions(*TEXTS), max_gen_len=LENGTH, engine=engine, **settings)
                   for engine in ("lean", "plain"))
    assert (lean == plain).float().mean() > 0.98    # kernels differ in the last bit


@pytest.mark.gpu
@pytest.mark.parametrize("batch,length", [(1, 500), (16, 1500), (64, 500)])
def test_no_mask_over_all_pairs_of_frames(batch: int, length: int) -> None:
    """A whole step in float16 takes less memory than one Boolean mask of [B, heads, T, T] would."""
    model = on_cuda(torch.float16, num_layers=2)
    predict = predictor(model, conditions(*["a reel"] * batch), batch, GenerationOptions(engine="plain"))
    tokens = torch.full((batch, model.n_q, length), model.card, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        predict.logits(tokens, 1, 1.0, torch.arange(length, device="cuda").expand(batch, length)[:, :8])
    assert torch.cuda.max_memory_allocated() - before < max(batch * 4 * length * length, 64 * 2 ** 20)
