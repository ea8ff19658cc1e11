"""Uploads: what can be edited is read, and everything else is refused with its reason."""
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_plugin.app.web.limits import Limits
from magnet_plugin.app.web.recordings import read_recording

LIMITS = Limits(max_seconds=2, max_upload_mb=0.2)


def write(path: Path, seconds: float, channels: int = 1, rate: int = 8000, **form: str) -> Path:
    wav = np.random.default_rng(0).normal(size=(round(seconds * rate), channels)) * 0.1
    soundfile.write(path, wav, rate, **form)
    return path


@pytest.mark.parametrize("name, channels, kept", [("a.wav", 1, 1), ("a.flac", 2, 2), ("a.ogg", 1, 1), ("a.mp3", 2, 2),
                                                  ("a.wav", 6, 1)])
def test_audio_of_the_usual_formats_is_read(name: str, channels: int, kept: int, tmp_path: Path) -> None:
    recording = read_recording(write(tmp_path / name, 1.0, channels), LIMITS)
    assert recording.audio.shape[0] == kept and recording.audio.dtype == np.float32 and recording.sample_rate == 8000
    assert recording.seconds == pytest.approx(1.0, abs=0.1) and recording.name == name
    np.testing.assert_array_equal(recording.part(0.25, 0.5).audio, recording.audio[:, 2000:4000])


def test_what_cannot_be_edited_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no audio")
    (tmp_path / "empty.wav").touch()
    cut = write(tmp_path / "cut.flac", 1.0).read_bytes()[:30]
    (tmp_path / "cut.flac").write_bytes(cut)
    write(tmp_path / "long.wav", 2.1)
    write(tmp_path / "short.wav", 0.1)
    write(tmp_path / "large.wav", 1.9, 8)
    write(tmp_path / "many.wav", 0.5, 9)
    soundfile.write(tmp_path / "nan.wav", np.full((4000, 1), np.nan), 8000, "FLOAT")
    for name, said in (("text.wav", "cannot be read as audio"), ("empty.wav", "is empty"), ("cut.flac", "cannot be read"),
                       ("long.wav", "longer than 2 s"), ("short.wav", "lasts 0.10 s; give at least 0.2 s"),
                       ("large.wav", "has 0.2 MB; the limit here is 0.2 MB"), ("many.wav", "9 channels"),
                       ("nan.wav", "not a number")):
        with pytest.raises(ValueError, match=said) as caught:
            read_recording(tmp_path / name, LIMITS)
        assert str(caught.value).startswith(name) and str(tmp_path) not in str(caught.value)


def test_a_recording_may_be_as_long_as_the_limit(tmp_path: Path) -> None:
    recording = read_recording(write(tmp_path / "a.wav", 2.03), LIMITS)        # A decoder's padding at the end.
    assert recording.seconds == 2.0
