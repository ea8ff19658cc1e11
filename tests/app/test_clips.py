"""Files of generated clips and their settings."""
import json

import numpy as np
import pytest
import soundfile

from magnet_plugin.app import clips


def test_equal_texts_get_different_names(tmp_path):
    texts = ["A reel!", "a reel", "a/reel", "a reel" * 100, "a reel" * 100, "", "///", "ein Lied", "日本の歌",
             "日本の歌" * 40]
    paths = [clips.reserve(tmp_path, text) for text in texts + texts]
    assert len(set(paths)) == len(paths) == len(list(tmp_path.iterdir()))
    assert paths[0].name == "a-reel-001.wav" and paths[1].name == "a-reel-002.wav" and "日本の歌" in paths[8].name
    assert clips.reserve(tmp_path, "a reel", ".flac").name == "a-reel-007.flac"      # audio of one name has one JSON file
    (tmp_path / "alone-001.wav").touch()                 # its JSON file was deleted
    assert clips.reserve(tmp_path, "alone").name == "alone-002.wav"
    assert all(path.parent == tmp_path and len(path.name.encode()) < 256 for path in paths)


def test_clip_and_settings_are_saved(tmp_path):
    wav = np.stack([np.linspace(-2, 2, 800), np.zeros(800)])
    gain = clips.save_clip(tmp_path / "x.wav", wav, 8000, {"text": "ein Stück", "seed": np.int64(3)})
    read, rate = soundfile.read(tmp_path / "x.wav")
    assert rate == 8000 and gain == pytest.approx(clips.PEAK / 2)
    np.testing.assert_allclose(read.T, wav * gain, atol=1e-4)           # scaled down, not clipped
    assert json.loads((tmp_path / "x.json").read_text()) == {"text": "ein Stück", "seed": 3, "gain": round(gain, 4)}
    assert clips.save_clip(tmp_path / "quiet.wav", wav / 4, 8000, {}) == 1.0
    assert clips.save_clip(tmp_path / "silent.wav", wav * 0, 8000, {}) == 1.0
    with pytest.raises(TypeError, match="object"):
        clips.save_clip(tmp_path / "unfit.wav", wav, 8000, {"model": object()})
    assert not (tmp_path / "unfit.wav").exists()                        # no audio without its settings
    with pytest.raises(ValueError, match="not finite"):
        clips.save_clip(tmp_path / "bad.wav", wav * np.nan, 8000, {})


def test_equal_clips_are_equal_files(tmp_path):
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        clips.save_clip(tmp_path / f"{name}.wav", np.zeros((1, 100)), 8000, {"seed": 1, clips.TOOK: seconds})
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert json.loads((tmp_path / "b.json").read_text())[clips.TOOK] == 2.0


@pytest.mark.parametrize("suffix, subtype, tolerance", [
    (".wav", "PCM_16", 4e-5), (".flac", "PCM_16", 4e-5), (".ogg", "VORBIS", 0.05), (".mp3", "MPEG_LAYER_III", 0.05)])
def test_formats(suffix, subtype, tolerance, tmp_path):
    wav = 0.5 * np.sin(np.arange(2 * 16000) / np.array([[9], [12]]))
    clips.save_clip(tmp_path / f"x{suffix}", wav, 16000, {"text": "a reel"})
    read, rate = soundfile.read(tmp_path / f"x{suffix}")
    assert rate == 16000 and soundfile.info(tmp_path / f"x{suffix}").subtype == subtype
    assert np.abs(read[2000:30000].T - wav[:, 2000:30000]).max() < tolerance
    assert {path.name for path in tmp_path.iterdir()} == {f"x{suffix}", "x.json"}


def test_samples_are_exact_without_scaling(tmp_path):
    wav = np.float32(np.random.default_rng(0).integers(-2 ** 23, 2 ** 23, (1, 100)) / 2 ** 23)
    wav[0, :3] = -1, 1.5, -2
    assert clips.save_clip(tmp_path / "x.wav", wav, 8000, {}, scale=False, subtype="PCM_24") == 1.0
    read = soundfile.read(tmp_path / "x.wav", dtype="float32")[0]
    assert (read[3:] == wav[0, 3:]).all() and read[0] == read[2] == -1 and read[1] == 1 - 2 ** -23
    clips.save_clip(tmp_path / "x.mp3", wav / 2, 8000, {}, subtype="PCM_24")                # not a sample format of MP3
    assert soundfile.info(tmp_path / "x.mp3").subtype == "MPEG_LAYER_III"


def test_settings_that_do_not_fit_into_the_audio_file_are_reported(tmp_path, caplog):
    for suffix in (".wav", ".flac"):
        clips.save_clip(tmp_path / f"x{suffix}", np.zeros((1, 100)), 8000, {"text": "a reel " * 400})
        with soundfile.SoundFile(tmp_path / f"x{suffix}") as file:
            assert bool(file.comment) == (suffix == ".flac")
    assert [record.getMessage()[:6] for record in caplog.records] == ["x.wav:"]
    with pytest.raises(ValueError, match="x.mp3: MP3 files cannot hold 3 channels at 8000 Hz"):
        clips.save_clip(tmp_path / "x.mp3", np.zeros((3, 100)), 8000, {})
    assert not (tmp_path / "x.mp3").exists()
