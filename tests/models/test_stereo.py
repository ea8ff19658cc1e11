"""Stereo models, in both layouts of AudioCraft's interleaved codecs, on a mono codec with untrained weights."""
import dataclasses
import typing as tp
from pathlib import Path

import pytest
import torch

import magnet_plugin

magnet_plugin.register()
from magnet_plugin import MAGNeT  # noqa: E402
from magnet_plugin.models import auxiliary, checkpoints, codec_chunks, keep  # noqa: E402
from magnet_plugin.models.autoregressive import AutoregressiveModel  # noqa: E402
from magnet_plugin.models.auxiliary import TokenFormat, check_token_format, load_rescorer  # noqa: E402
from magnet_plugin.models.keep import Clip  # noqa: E402
from magnet_plugin.models.loaders import load_codec  # noqa: E402

from ..helpers.small_musicgens import musicgen_folder  # noqa: E402
from ..helpers.stereo import LAYOUTS, stereo_folder  # noqa: E402

SHAPES = {"codebooks in turn": (8, 100), "frames in turn": (4, 200)}
MUSICGEN = {"codebooks in turn": [*LAYOUTS["codebooks in turn"], "codebooks_pattern.delay.delays=[0,0,1,1,2,2,3,3]"],
            "frames in turn": LAYOUTS["frames in turn"][:-1]}


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(layout: str, release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stereo_folder(tmp_path_factory.mktemp("stereo"), release_folder, layout)


@pytest.fixture(scope="module")
def musicgen(layout: str, release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MusicGen with AudioCraft's stereo settings."""
    return musicgen_folder(tmp_path_factory.mktemp("musicgen"), release_folder, *MUSICGEN[layout])


@pytest.fixture(scope="module")
def loaded(folder: Path) -> MAGNeT:
    return MAGNeT.get_pretrained(str(folder), device="cpu")


@pytest.fixture
def model(loaded: MAGNeT) -> MAGNeT:
    loaded.set_generation_params(decoding_steps=[2] + [1] * (loaded.lm.n_q - 1))
    return loaded


def channels(tokens: torch.Tensor, layout: str) -> list[torch.Tensor]:
    """The tokens of the left and of the right channel, [B, 4, T] each."""
    return [tokens[:, i::2] if layout == "codebooks in turn" else tokens[..., i::2] for i in range(2)]


def test_a_stereo_model_generates_two_channels(model: MAGNeT, layout: str) -> None:
    texts = ["a fast reel", "a slow waltz"]
    wav, tokens = model.generate(texts, return_tokens=True, seed=1)
    assert tokens.shape == (2, *SHAPES[layout]) and wav.shape == (2, 2, 32000) and wav.isfinite().all()
    codec = model.compression_model.model
    for i, own in enumerate(channels(tokens, layout)):
        assert torch.allclose(wav[:, i:i + 1], codec.decode(own), atol=1e-5)
    assert not torch.allclose(wav[:, 0], wav[:, 1]) and torch.equal(wav, model.generate(texts, seed=1))
    assert model.lm.segment_frames == SHAPES[layout][1] and model.audio_channels == 2
    assert Clip.of(model.compression_model, tokens.shape[2]).levels == 4
    found = []
    for engine in ("plain", "lean"):
        model.set_generation_params(decoding_steps=model.options.decoding_steps, engine=engine, use_sampling=False)
        found.append(model.generate(["a fast reel"], return_tokens=True)[1])
    assert torch.equal(*found)


def test_default_steps_depend_on_the_number_of_codebooks(model: MAGNeT) -> None:
    model.set_generation_params()
    assert model.options.decoding_steps == (20, *[10] * (model.lm.n_q - 1))


@pytest.mark.parametrize("seconds", [0.02, 0.57, 0.73, 1.1])
def test_clips_of_any_duration_have_equally_long_channels(model: MAGNeT, layout: str, seconds: float,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    model.set_generation_params(decoding_steps=model.options.decoding_steps, duration=seconds)
    wav, tokens = model.generate(["a reel"], return_tokens=True, seed=1)
    frames = -(-round(seconds * 100) // 2)                               # at 50 a second
    assert wav.shape == (1, 2, 320 * frames)
    monkeypatch.setattr(model, "max_duration", seconds)
    assert model.window_frames == tokens.shape[-1]
    assert [own.shape for own in channels(tokens, layout)] == [(1, 4, frames)] * 2


def test_a_continuation_keeps_both_channels_of_the_prompt(model: MAGNeT, layout: str) -> None:
    prompt = torch.randn(1, 2, 8000, generator=torch.Generator().manual_seed(1)) * 0.1
    codec = model.compression_model.model
    for given in (prompt, prompt[:, :1]):
        tokens = model.generate_continuation(given, 16000, ["a reel"], return_tokens=True, seed=1)[1]
        for i, own in enumerate(channels(tokens, layout)):
            assert torch.equal(own[..., :25], codec.encode(given[:, min(i, given.shape[1] - 1)][:, None])[0])


def test_a_stereo_musicgen_rescores_and_prompts_a_stereo_model(model: MAGNeT, musicgen: Path, layout: str) -> None:
    steps = model.options.decoding_steps
    plain = model.generate(["a reel"], return_tokens=True, seed=1)[1]
    model.set_generation_params(decoding_steps=steps, rescorer=musicgen, rescorer_weight=0.3)
    wav, rescored = model.generate(["a reel"], return_tokens=True, seed=1)
    assert wav.shape == (1, 2, 32000) and rescored.shape == plain.shape and not torch.equal(rescored, plain)
    model.set_generation_params(decoding_steps=steps, prompt_model=musicgen, prompt_duration=0.11)
    wav, prompted = model.generate(["a reel"], return_tokens=True, seed=1)
    assert wav.shape == (1, 2, 32000) and not torch.equal(prompted, plain)


def test_another_stereo_magnet_rescores_at_its_own_frame_rate(model: MAGNeT, folder: Path) -> None:
    again = tp.cast(tp.Any, load_rescorer(folder, model.compression_model, "cpu"))
    assert again.lm.frame_rate == model.lm.frame_rate == model.frame_rate


def test_mono_and_stereo_models_are_not_mixed(model: MAGNeT, folder: Path, release_folder: Path) -> None:
    with pytest.raises(ValueError, match="do not share a codec .*channels 1 instead of 2"):
        model.set_generation_params(rescorer=release_folder)
    mono = MAGNeT.get_pretrained(str(release_folder), device="cpu")
    for source in (folder, model, model.lm):
        with pytest.raises(ValueError, match="do not share a codec .*channels 2 instead of 1"):
            auxiliary.load_rescorer(tp.cast(tp.Any, source), mono.compression_model, "cpu")
    ours = TokenFormat.of_codec(model.compression_model)
    with pytest.raises(ValueError, match=r"do not share a codec \(channels 1 instead of 2\)"):
        check_token_format(dataclasses.replace(ours, channels=1), ours, "X")


def test_an_exported_stereo_model_generates_the_same(model: MAGNeT, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    package = checkpoints.load_package(folder, checkpoints.LM_FILE)
    torch.save({"best_state": {"model": package["best_state"]}, "xp.cfg": package["xp.cfg"]}, run / "checkpoint.th")
    out = checkpoints.export(str(run), tmp_path / "out")
    again = [MAGNeT.get_pretrained(str(name), device="cpu") for name in (run, out)]
    for other in again:
        other.set_generation_params(decoding_steps=model.options.decoding_steps)
        assert torch.equal(other.generate(["a reel"], seed=1), model.generate(["a reel"], seed=1))
    assert load_codec(out).channels == 1, "the file holds the codec of one channel, as AudioCraft's own stereo models do"


def noise(channels: int, seconds: float) -> torch.Tensor:
    """White noise at 16 kHz, [1, channels, samples]."""
    return 0.1 * torch.randn(1, channels, round(16000 * seconds), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [1, 2])
def test_recordings_are_edited_and_long_clips_generated_where_codebooks_take_turns(model: MAGNeT, layout: str, channels: int
                                                                                   ) -> None:
    recording = noise(channels, 2)
    if layout == "frames in turn":
        for call in (lambda: model.inpaint(recording, 16000, [(0.5, 1)]), lambda: model.loop(recording, 16000, 0.5),
                     lambda: model.set_generation_params(duration=3)):
            with pytest.raises(ValueError, match="not possible with interleave_stereo_codebooks.per_timestep=true"):
                call()
        return
    edit = model.inpaint(recording, 16000, [(0.5, 1.0)], ["a reel"], seed=1)
    assert edit.tokens.shape == (1, 8, 100) and (edit.known == keep.outside([(0.5, 1.0)])(Clip(8, 100, 50))).all()
    assert torch.equal(edit.tokens[edit.known], model.compression_model.encode(recording.expand(1, 2, -1))[0][edit.known])
    assert edit.audio.shape == recording.shape and torch.equal(edit.audio[..., :8000], recording[..., :8000])
    assert not torch.equal(edit.audio[..., 9000:15000], recording[..., 9000:15000])
    known = model.vary(recording, 16000, 0.4, seed=1).known
    assert torch.equal(known[:, 0::2], known[:, 1::2]) and not torch.equal(known[:, 0], known[:, 2])
    model.set_generation_params(decoding_steps=model.options.decoding_steps, duration=3)
    assert tp.cast(torch.Tensor, model.generate(["a reel"], seed=1)).shape == (1, 2, 48000)


def test_a_stereo_recording_is_edited_by_a_mono_model(release_folder: Path) -> None:
    model = MAGNeT.get_pretrained(str(release_folder), device="cpu")
    model.set_generation_params(decoding_steps=[2, 1, 1, 1])
    recording = noise(2, 2)
    edit = model.inpaint(recording, 16000, [(0.5, 1.0)], seed=1)
    assert edit.audio.shape == recording.shape and torch.equal(edit.audio[..., :8000], recording[..., :8000])
    assert torch.equal(edit.audio[:, 0, 9000:15000], edit.audio[:, 1, 9000:15000]) and edit.tokens.shape == (1, 4, 100)


def test_a_recording_is_encoded_in_whole_pairs_of_frames(model: MAGNeT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Piece by piece, as at once."""
    recording = noise(2, 1.81)
    whole = model.compression_model.encode(recording)[0]
    assert torch.equal(codec_chunks.encode(model.compression_model, recording), whole)
    monkeypatch.setattr(codec_chunks, "PIECE", 0.47)
    monkeypatch.setattr(codec_chunks, "MARGIN", 0.31)
    assert torch.equal(codec_chunks.encode(model.compression_model, recording), whole)
    audio = model.compression_model.decode(whole)
    assert torch.allclose(codec_chunks.decode(model.compression_model, whole), audio, atol=1e-5)


def test_a_stereo_musicgen_generates_for_comparison(musicgen: Path, layout: str) -> None:
    model = AutoregressiveModel.load(musicgen)
    model.duration = 0.11
    wav, tokens = model.generate(["a reel"], return_tokens=True, seed=1)
    assert wav.shape == (1, 2, 6 * 320) and [own.shape for own in channels(tokens, layout)] == [(1, 4, 6)] * 2
