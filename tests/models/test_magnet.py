"""MAGNeT as users call it, on a release folder with untrained weights."""
import json
import typing as tp
from pathlib import Path

import pytest
import torch

import magnet_plugin
from magnet_plugin.models.keep import codebooks
from tests.helpers.small_models import conditions


@pytest.fixture(scope="module")
def model(release_folder: Path) -> tp.Any:
    magnet_plugin.register()
    from audiocraft.models import MAGNeT
    model = MAGNeT.get_pretrained(str(release_folder), device="cpu")
    model.set_generation_params(decoding_steps=[3, 2, 2, 2])
    return model


@pytest.fixture(autouse=True)
def few_steps(model: tp.Any) -> tp.Iterator[None]:
    yield
    model.set_generation_params(decoding_steps=[3, 2, 2, 2])


def test_generation_gives_finite_audio_that_the_seed_decides(model: tp.Any) -> None:
    wav, tokens = model.generate(["a fast reel", "a slow waltz on the flute"], return_tokens=True, seed=1)
    assert wav.shape == (2, 1, 2 * 16000) and tokens.shape == (2, 4, 100) and wav.isfinite().all()
    again = model.generate(["a fast reel", "a slow waltz on the flute"], seed=1)
    assert torch.equal(wav, again)
    assert not torch.equal(wav, model.generate(["a fast reel", "a slow waltz on the flute"], seed=2))


def test_tokens_depend_on_the_text_and_on_the_guidance_scale(model: tp.Any) -> None:
    def tokens(text: str, coefficient: float) -> torch.Tensor:
        model.set_generation_params(use_sampling=False, decoding_steps=[3, 2, 2, 2], max_cfg_coef=coefficient,
                                    min_cfg_coef=coefficient)
        return model.generate([text], return_tokens=True)[1]

    assert not torch.equal(tokens("a fast reel", 3.0), tokens("a slow waltz", 3.0))
    assert not torch.equal(tokens("a fast reel", 3.0), tokens("a fast reel", 1.0))
    assert torch.equal(tokens("a fast reel", 0.0), tokens("a slow waltz", 0.0))


def test_unconditional_generation_works_where_audiocraft_raises(model: tp.Any) -> None:
    wav = model.generate_unconditional(2, seed=3)
    assert wav.shape == (2, 1, 32000)
    assert model.lm.generate(num_samples=3, max_gen_len=20, decoding_steps=[2, 1, 1, 1]).shape == (3, 4, 20)


def test_a_continuation_keeps_the_prompt(model: tp.Any) -> None:
    prompt = torch.randn(1, 1, 8000) * 0.1
    wav, tokens = model.generate_continuation(prompt, 16000, ["a reel"], return_tokens=True, seed=1)
    expected, _ = model.compression_model.encode(prompt)
    assert torch.equal(tokens[..., :25], expected) and tokens.shape[-1] == 100
    stereo = model.generate_continuation(prompt.expand(1, 2, 8000), 16000, seed=1)
    assert stereo.shape == wav.shape


@pytest.mark.parametrize("seconds,frames", [(2.0, 100), (1.0, 50), (0.73, 37), (0.02, 1)])
def test_clips_of_any_duration_are_complete(model: tp.Any, seconds: float, frames: int) -> None:
    for arrangement in ("stride1", "nonoverlap"):
        model.set_generation_params(decoding_steps=[3, 2, 2, 2], duration=seconds, span_arrangement=arrangement)
        assert model.generate(["a reel"], return_tokens=True)[1].shape[-1] == frames


def test_parameters_that_are_not_named_return_to_their_defaults(model: tp.Any) -> None:
    model.set_generation_params(top_p=0.5, duration=1.0)
    model.set_generation_params(temperature=2.0)
    assert (model.options.top_p, model.options.temp, model.duration) == (0.9, 2.0, 2)
    assert model.options.decoding_steps == (20, 10, 10, 10) and model.options.span_arrangement == "stride1"


def test_progress_is_printed_or_passed_to_the_callback(model: tp.Any, capsys: pytest.CaptureFixture[str]) -> None:
    model.generate(["a reel"], progress=True)
    shown = capsys.readouterr().err
    assert "9/9" in shown and "codebook 4/4, step 2/2" in shown
    model.progress_label = "2/3 a reel"
    model.vary(torch.randn(1, 16000), 16000, keep=~codebooks(1), progress=True)     # decodes the first codebook only
    del model.progress_label
    shown = capsys.readouterr().err
    assert "2/3 a reel: 100%" in shown and "codebook 1/4, step 3/3" in shown
    seen: list[tuple[int, int]] = []
    model.set_custom_progress_callback(lambda done, total: seen.append((done, total)))
    model.generate(["a reel"], progress=True)
    model.set_custom_progress_callback(None)
    assert seen == [(i, 9) for i in range(1, 10)]


def test_settings_can_be_written_as_json(model: tp.Any) -> None:
    from magnet_plugin.models.settings import settings
    plain = json.loads(json.dumps(settings(model)))
    assert plain["span_len"] == 3 and plain["decoding_steps"] == [3, 2, 2, 2] and plain["frame_rate"] == 50


def test_after_a_warmup_the_first_generation_prepares_nothing_and_nothing_else_has_changed(
        model: tp.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from magnet_plugin.engine import engines
    engines.release(model.lm)
    lengths: list[tp.Any] = []
    decode = model.compression_model.decode
    monkeypatch.setattr(model.compression_model, "decode",
                        lambda tokens, *args: lengths.append(tokens.shape) or decode(tokens))
    steps: list[tuple[int, ...]] = []
    fill_in = model.lm.decode
    monkeypatch.setattr(model.lm, "decode",
                        lambda generation: steps.append(generation.options.decoding_steps) or fill_in(generation))
    settings, state = dict(model.generation_params), torch.get_rng_state()
    assert model.warmup(2, duration=1.0) is None and lengths == [(2, 4, 50)] and steps == [(1, 1, 1, 1)]
    assert torch.equal(torch.get_rng_state(), state), "the global random state was used"
    assert model.generation_params == settings and model.duration == 2
    monkeypatch.setattr(engines, "read_weights", lambda *args: pytest.fail("the engine is built again"))
    model.generate(["a fast reel"], seed=1)
    for arguments, word in (((0,), "batch_size=0"), ((1, 0.0), "duration=0")):
        with pytest.raises(ValueError, match=word):
            model.warmup(*arguments)


def test_a_warmup_on_a_gpu_captures_all_steps(model: tp.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, with decoding in buffers of fixed shapes as on a GPU."""
    from magnet_plugin.engine.engines import engine_for
    engine = engine_for(model.lm, "model", torch.float32)
    monkeypatch.setattr(engine, "static", True)
    monkeypatch.setattr(model, "device", torch.device("cuda"))
    state = torch.get_rng_state()
    model.warmup(2)
    assert torch.equal(torch.get_rng_state(), state), "the global random state was used"

    def captured() -> list[int]:
        return [len(decoder._calls) for decoder in engine.decoders.values()]

    assert captured() == [4 * 2], "both kinds of steps of all codebooks"
    model.generate(["a fast reel in D", "a waltz on the flute"], seed=1)        # On a GPU, texts are padded to one length.
    assert captured() == [4 * 2]
    model.generate(["a fast reel in D"], seed=1)
    assert len(captured()) == 2, "another batch size is another capture"


BAD: list[tuple[str, str, tp.Callable[[tp.Any], tp.Any]]] = [
    ("empty list", "descriptions is empty", lambda m: m.generate([])),
    ("one text", "pass \\[text\\]", lambda m: m.generate("a reel")),
    ("no samples", "num_samples=0", lambda m: m.generate_unconditional(0)),
    ("long prompt", "prompt lasts 2.00 s.*duration", lambda m: m.generate_continuation(torch.zeros(1, 1, 32000), 16000)),
    ("channels", "5 channels", lambda m: m.generate_continuation(torch.zeros(1, 5, 8000), 16000)),
    ("shape", "\\[B, C, samples\\]", lambda m: m.generate_continuation(torch.zeros(8000), 16000)),
    ("empty prompt", "non-empty", lambda m: m.generate_continuation(torch.zeros(1, 1, 0), 16000)),
    ("two texts", "2 descriptions for 1 samples",
     lambda m: m.generate_continuation(torch.zeros(1, 1, 800), 16000, ["a", "b"])),
    ("steps", "decoding_steps.*4 codebooks", lambda m: m.set_generation_params(decoding_steps=[3, 2])),
    ("duration", "duration=-3.*above 0", lambda m: m.set_generation_params(duration=-3.0)),
    ("arrangement", "span_arrangement='grid'", lambda m: m.set_generation_params(span_arrangement="grid")),
    ("cfg_coef", "max_cfg_coef", lambda m: m.lm.generate(cfg_coef=3.0)),
    ("conditions", "one per sample", lambda m: m.lm.generate(prompt=torch.zeros(2, 4, 3, dtype=torch.long),
                                                              conditions=conditions("a"))),
]


@pytest.mark.parametrize("word,call", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_invalid_input_is_refused(model: tp.Any, word: str, call: tp.Callable[[tp.Any], tp.Any]) -> None:
    with pytest.raises(ValueError, match=word):
        call(model)


def test_nan_weights_raise_an_error_that_names_stage_and_step(release_folder: Path) -> None:
    from magnet_plugin import MAGNeT
    from magnet_plugin.decoding.magnet import NonFiniteLogits
    model = MAGNeT.get_pretrained(str(release_folder), device="cpu")
    with torch.no_grad():
        model.lm.linears[1].weight[3] = float("nan")
    model.set_generation_params(decoding_steps=[2, 2, 2, 2])
    with pytest.raises(NonFiniteLogits, match=r"stage 1, step 0 \(dtype float32, attention backend auto\)"):
        model.generate(["a reel"])


def test_an_unknown_model_name_is_refused() -> None:
    from magnet_plugin import MAGNeT
    with pytest.raises(ValueError, match="no such bundled model"):
        MAGNeT.get_pretrained("//bundled/no-such-model")
    with pytest.raises(ValueError, match="no checkpoint found"):
        MAGNeT.get_pretrained("./no/such/folder")
