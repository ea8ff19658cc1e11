"""Rescoring and prompt models in `MAGNeT.generate`, on released models."""
import json
import typing as tp
from pathlib import Path

import pytest
import torch

import magnet_plugin
from tests.helpers.small_models import conditions
from tests.helpers.small_musicgens import build_musicgen, musicgen_folder


@pytest.fixture(scope="module")
def musicgen(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return musicgen_folder(tmp_path_factory.mktemp("musicgen"), release_folder)


@pytest.fixture(scope="module")
def model(release_folder: Path) -> tp.Any:
    magnet_plugin.register()
    from audiocraft.models import MAGNeT
    return MAGNeT.get_pretrained(str(release_folder), device="cpu")


FEW: dict[str, tp.Any] = {"decoding_steps": [4, 2, 2, 2]}
TEXTS = ["a fast reel", "a slow waltz on the flute"]


def tokens_with(model: tp.Any, seed: int = 1, **params: tp.Any) -> torch.Tensor:
    model.set_generation_params(**FEW, **params)
    return model.generate(TEXTS, return_tokens=True, seed=seed)[1]


def test_a_musicgen_rescores_a_magnet_and_every_setting_counts(model: tp.Any, musicgen: Path, release_folder: Path) -> None:
    from magnet_plugin import MAGNeT
    from magnet_plugin.models.settings import settings
    unrescored = tokens_with(model)
    rescored = tokens_with(model, rescorer=musicgen, rescorer_weight=0.5)
    assert torch.equal(rescored, tokens_with(model, rescorer=str(musicgen), rescorer_weight=0.5))
    assert rescored.shape == unrescored.shape and not torch.equal(rescored, unrescored)
    plain = json.loads(json.dumps(settings(model)))
    assert plain["rescorer"] == str(musicgen) and plain["rescorer_weight"] == 0.5 and plain["prompt_model"] is None
    assert torch.equal(tokens_with(model, rescorer=musicgen, rescorer_weight=1.0), unrescored)
    for change in ({"rescorer_stages": [0]}, {"rescorer_every": 2}, {"rescorer_cfg_coef": 3.0}, {"rescorer_fill": "greedy"},
                   {"rescorer_anneal": False}, {"rescorer_resample": False}):
        assert not torch.equal(tokens_with(model, rescorer=musicgen, rescorer_weight=0.5, **change), rescored), change
    assert torch.equal(tokens_with(model), unrescored) and model.rescorer_name is None
    own = MAGNeT.get_pretrained(str(release_folder), device="cpu", rescorer=musicgen)
    assert own.options.rescorer_weight == 0.7 and own.rescorer_name == str(musicgen)
    assert torch.equal(tokens_with(own, rescorer_weight=0.5), rescored)
    assert torch.equal(tokens_with(own, rescorer_weight=1.0), unrescored) and own.rescorer_name is None
    own.set_preset("music-10s")
    assert own.options.rescorer_weight == 0.7 and own.rescorer_name == str(musicgen)
    assert own.generate_unconditional(1, seed=1).isfinite().all()
    again = tokens_with(model, rescorer=release_folder, rescorer_weight=0.5)
    assert not torch.equal(again, unrescored) and not torch.equal(again, rescored)


def test_one_call_with_one_seed_generates_the_prompt_and_continues_it(model: tp.Any, musicgen: Path) -> None:
    from magnet_plugin.models.auxiliary import load_prompt_model
    from magnet_plugin.models.settings import settings
    unrescored = tokens_with(model)
    both = tokens_with(model, prompt_model=musicgen, prompt_duration=0.5)
    torch.manual_seed(7)
    assert torch.equal(tokens_with(model, prompt_model=musicgen, prompt_duration=0.5), both)
    written = load_prompt_model(musicgen, model.compression_model).generate(conditions(*TEXTS), 2, 25, seed=1)
    assert both.shape == unrescored.shape and torch.equal(both[..., :25], written)
    model.set_generation_params(**FEW)
    expected = model.lm.generate(written, conditions(*TEXTS), max_gen_len=100, seed=1, **model.generation_params)
    assert torch.equal(both, expected)
    assert not torch.equal(tokens_with(model, seed=2, prompt_model=musicgen, prompt_duration=0.5)[..., :25], written)
    plain = json.loads(json.dumps(settings(model)))
    assert plain["prompt_model"] == str(musicgen) and plain["prompt_duration"] == 0.5
    assert torch.equal(tokens_with(model, rescorer=musicgen, rescorer_weight=0.5, prompt_model=musicgen,
                                   prompt_duration=0.5)[..., :25], written)
    assert torch.equal(tokens_with(model), unrescored)


def test_an_audio_prompt_is_continued_by_the_prompt_model_and_then_by_magnet(model: tp.Any, musicgen: Path) -> None:
    model.set_generation_params(**FEW, prompt_model=musicgen, prompt_duration=0.5)
    sound = torch.randn(1, 1, 3200, generator=torch.Generator().manual_seed(0)) * 0.1
    _, tokens = model.generate_continuation(sound, 16000, ["a reel"], return_tokens=True, seed=1)
    assert torch.equal(tokens[..., :10], model.compression_model.encode(sound)[0]) and tokens.shape[-1] == 100
    with pytest.raises(ValueError, match="prompt lasts 0.50 s.*up to prompt_duration=0.5 s; raise prompt_duration"):
        model.generate_continuation(torch.zeros(1, 1, 8000), 16000, ["a reel"])
    assert model.generate_unconditional(2, seed=1).shape == (2, 1, 32000)


def test_progress_includes_the_steps_of_the_prompt_model(model: tp.Any, musicgen: Path) -> None:
    model.set_generation_params(**FEW, prompt_model=musicgen, prompt_duration=0.2)
    seen: list[tuple[int, int]] = []
    model.set_custom_progress_callback(lambda done, total: seen.append((done, total)))
    model.generate(["a reel"], progress=True)
    model.set_custom_progress_callback(None)
    assert seen == [(i, 13 + 10) for i in range(1, 24)]


BAD: list[tuple[dict[str, tp.Any], str]] = [
    ({"rescorer_weight": 0.5}, "rescorer_weight=0.5 needs a rescorer"),
    ({"rescorer": "./none"}, "no checkpoint found"),
    ({"rescorer": "//bundled/magnet-16khz"}, "rescorer //bundled/magnet-16khz and .*cardinality 512 instead of 64"),
    ({"rescorer": "//bundled/magnet-16khz", "rescorer_stages": [4]}, "stages 0 to 3, not 4"),
    ({"prompt_model": "x"}, "prompt_duration=0"), ({"prompt_duration": 0.5}, "or prompt_model="),
    ({"prompt_model": "x", "prompt_duration": 2.0}, "below duration=2"),
    ({"prompt_model": "x", "prompt_duration": -1.0}, "prompt_duration=-1.*at least 0"),
]


@pytest.mark.parametrize("params,words", BAD, ids=[words.split()[0] + str(i) for i, (_, words) in enumerate(BAD)])
def test_invalid_parameters_are_refused_and_change_nothing(model: tp.Any, params: dict[str, tp.Any], words: str) -> None:
    model.set_generation_params(**FEW, duration=1.0)
    before = dict(model.generation_params)
    with pytest.raises(ValueError, match=words):
        model.set_generation_params(**params)
    assert model.generation_params == before and model.duration == 1.0


def test_a_magnet_is_refused_as_prompt_model(model: tp.Any, release_folder: Path) -> None:
    with pytest.raises(ValueError, match="prompt_model .* is not autoregressive"):
        model.set_generation_params(prompt_model=release_folder, prompt_duration=0.5)
    with pytest.raises(ValueError, match="rescorer_weight=0.5 needs a rescorer"):
        model.lm.generate(num_samples=1, max_gen_len=10, rescorer_weight=0.5, decoding_steps=[1, 1, 1, 1])


def test_language_models_in_memory_serve_as_rescorer_and_prompt_model(model: tp.Any) -> None:
    from magnet_plugin.models.prompt_models import PromptModel
    rescorer, prompt_model = build_musicgen(card=64), build_musicgen(card=64, seed=1)
    prompted, rescored = (tokens_with(model, prompt_model=prompt_model, prompt_duration=0.3, **how)
                          for how in ({}, {"rescorer": rescorer, "rescorer_weight": 0.5}))
    expected = PromptModel(prompt_model).generate(conditions(*TEXTS), 2, 15, seed=1)
    assert torch.equal(prompted[..., :15], expected) and torch.equal(rescored[..., :15], expected)
    assert not torch.equal(rescored, prompted)


def test_threads_that_share_weights_keep_their_own_parameters(model: tp.Any, musicgen: Path) -> None:
    """With a rescorer and with a prompt model, as in turn."""
    from concurrent.futures import ThreadPoolExecutor
    kinds: list[dict[str, tp.Any]] = [{"temperature": 1.0}, {"top_k": 3, "top_p": 0.0},
                                      {"rescorer": musicgen, "rescorer_weight": 0.4},
                                      {"prompt_model": musicgen, "prompt_duration": 0.3}]

    def generate(number: int) -> torch.Tensor:
        own = model.with_generation_params(**FEW, **kinds[number % 4])
        return own.generate(TEXTS, return_tokens=True, seed=number)[1]

    model.set_generation_params(**FEW)
    before = dict(model.generation_params)
    expected = [generate(number) for number in range(8)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(generate, range(8)))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert model.generation_params == before and len({str(tokens.tolist()) for tokens in found}) == 8
