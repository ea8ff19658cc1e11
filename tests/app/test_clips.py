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
