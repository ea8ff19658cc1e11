"""The fast path compared with the reference path: logits, tokens, and unsupported models."""
import logging
import typing as tp

import pytest
import torch

from magnet_plugin.engine import layers
from magnet_plugin.engine.engines import engine_for

from ..helpers.guided_logits import LENGTH, TEXTS, cuda_model, guided_logits, relative_error, texts_for
from ..helpers.small_models import MagnetLMModel, build, build_scaled, conditions

VARIANTS: dict[str, dict[str, tp.Any]] = {
    "plain": {}, "biases": {"bias_attn": True, "bias_ff": True, "bias_proj": True}, "layer scale": {"layer_scale": 0.3},
    "three layers": {"num_layers": 3}, "one layer": {"num_layers": 1}, "torch's own attention": {"custom": False},
    "no text": {"conditioned": False}, "no restriction": {"subcodes_context": -1}, "relu": {"activation": "relu"},
    "no last norm": {"out_norm": None},
}


@pytest.fixture(params=VARIANTS, ids=lambda name: name.replace(" ", "-"))
def model(request: pytest.FixtureRequest) -> tp.Any:
    changes = dict(VARIANTS[request.param])
    without_norm = changes.pop("out_norm", True) is None
    made = build_scaled(MagnetLMModel, biases=True, **changes)
    if without_norm:
        made.out_norm = None
    return made


def test_logits_equal_those_of_the_reference_path(model: tp.Any) -> None:
    assert relative_error(guided_logits(model, engine="lean"), guided_logits(model, engine="plain")) < 1e-5


@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
@pytest.mark.parametrize("prompt_frames", [0, 10])
def test_tokens_equal_those_of_the_reference_path(model: tp.Any, arrangement: str, prompt_frames: int) -> None:
    prompt = torch.randint(0, model.card, (len(TEXTS), model.n_q, prompt_frames), generator=torch.Generator().manual_seed(1))
    for settings in ({"use_sampling": False}, {"seed": 3}):
        lean, plain = (model.generate(prompt, texts_for(model), max_gen_len=LENGTH, decoding_steps=[6, 4, 3, 3],
                                      engine=engine, span_arrangement=arrangement, **settings)
                       for engine in ("lean", "plain"))
        assert plain.unique().numel() > 6
        assert torch.equal(lean, plain), settings


def test_an_unconditional_text_with_varying_keys_is_attended_to() -> None:
    """The shortcut for equal keys must not be taken: the cross-attention of the unconditional branch has to be computed."""
    model = build_scaled(MagnetLMModel, biases=True)
    inner = model.condition_provider.conditioners["description"]
    forward = inner.forward
    inner.forward = lambda tokenized: (forward(tokenized)[0] + torch.linspace(0, 1, forward(tokenized)[0].shape[1])[:, None],
                                       forward(tokenized)[1])
    assert relative_error(guided_logits(model, engine="lean"), guided_logits(model, engine="plain")) < 1e-5


def test_rows_that_do_not_attend_to_the_text_are_not_normalized_for_it() -> None:
    model = build(MagnetLMModel)
    engine = engine_for(model, "model", torch.float32)
    rows: list[int] = []

    def add_norm(*args: tp.Any) -> torch.Tensor:
        result = layers.add_norm(*args)
        rows.append(len(result))
        return result

    engine.functions = engine.functions._replace(add_norm=add_norm)
    text = torch.randn(3, 5, model.dim, generator=torch.Generator().manual_seed(0))
    engine.session(text, torch.zeros_like(text)).logits(torch.zeros(3, model.n_q, 9, dtype=torch.long), 0, True)
    assert rows == [3, 3, 6, 6, 3, 6, 6]        # Two layers of three norms, and the last one.


@pytest.mark.parametrize("precision,bound", [("bfloat16", 0.01), ("int8", 0.05)])
def test_lower_precision_gives_similar_logits(precision: str, bound: float) -> None:
    """Compared at guidance scale 1, because guidance multiplies the error."""
    model = build(MagnetLMModel)            # not scaled up: larger weights would saturate
    found, exact = guided_logits(model, engine="lean", precision=precision), guided_logits(model, engine="plain")
    assert 1e-5 < relative_error(found[::6], exact[::6]) < bound


def test_bfloat16_weights_are_as_accurate_as_on_the_reference_path() -> None:
    model = build(MagnetLMModel)
    exact = guided_logits(model, engine="plain")
    model.bfloat16()
    lean, plain = guided_logits(model, engine="lean"), guided_logits(model, engine="plain")
    assert 1e-5 < relative_error(lean[::6], exact[::6]) < 0.05                      # at guidance scale 1
    assert relative_error(lean, exact) < 2 * relative_error(plain, exact)


def test_linear_layers_compute_in_the_dtype_of_autocast() -> None:
    model = build(MagnetLMModel)
    exact = guided_logits(model, engine="lean")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert 1e-5 < relative_error(guided_logits(model, engine="lean"), exact) < 0.05


def test_changed_weights_rebuild_the_engine() -> None:
    model = build_scaled(MagnetLMModel, biases=True)
    before = guided_logits(model, engine="lean")
    assert engine_for(model, "model", torch.float32) is engine_for(model, "model", torch.float32)
    model.load_state_dict(build_scaled(MagnetLMModel, biases=True, seed=5).state_dict())
    assert relative_error(guided_logits(model, engine="lean"), guided_logits(model, engine="plain")) < 1e-5
    assert relative_error(guided_logits(model, engine="lean"), before) > 0.1


@pytest.mark.parametrize("changes,named", [({"norm_first": False}, "norm_first"), ({"positional_embedding": "rope"}, "rope"),
                                           ({"qk_layer_norm": True}, "qk_layer_norm"), ({"kv_repeat": 2}, "kv_repeat")])
def test_unsupported_models_use_the_reference_path_unless_the_fast_path_is_requested(changes: dict[str, tp.Any], named: str,
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


def test_float16_is_refused_on_a_cpu() -> None:
    with pytest.raises(ValueError, match="precision=float16 is slow on a CPU; set precision=bfloat16"):
        build_scaled(MagnetLMModel, biases=True).generate(conditions=conditions(*TEXTS), max_gen_len=9, precision="float16")


@pytest.mark.gpu
@pytest.mark.parametrize("arrangement", ["stride1", "nonoverlap"])
def test_greedy_tokens_on_cuda_nearly_equal_those_of_the_reference_path(arrangement: str) -> None:
    model = cuda_model()
    settings: dict[str, tp.Any] = {"use_sampling": False, "span_arrangement": arrangement, "decoding_steps": [6, 4, 3, 3]}
    lean, plain = (model.generate(conditions=conditions(*TEXTS), max_gen_len=LENGTH, engine=engine, **settings)
                   for engine in ("lean", "plain"))
    assert (lean == plain).float().mean() > 0.98    # kernels differ in the last bit


