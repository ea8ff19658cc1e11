"""Recordings that visitors upload."""
import dataclasses
import typing as tp
from pathlib import Path

import numpy as np

from .limits import Limits

SHORTEST = 0.2          # seconds


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A recording that is to be edited.

    Attributes:
        name: its file's name.
        audio: float32 [channels, samples].
        sample_rate: in Hz.
        url: where the page finds it.
    """
    name: str
    audio: np.ndarray
    sample_rate: int
    url: str = ""

    @property
    def seconds(self) -> float:
        """Length."""
        return self.audio.shape[-1] / self.sample_rate

    def part(self, start: float, end: float) -> "Recording":
        """Return the samples from `start` to `end`, in seconds."""
        first, last = round(start * self.sample_rate), round(end * self.sample_rate)
        return dataclasses.replace(self, audio=self.audio[:, first:last])


def read_recording(path: Path, limits: Limits, name: tp.Optional[str] = None) -> Recording:
    """Read an uploaded audio file.

    Args:
        path: the file.
        limits: what is allowed.
        name: what the visitor called it; by default as the file.
    Raises:
        ValueError: it is too large or too long, is no audio, or holds no sound that can be edited.
    """
    import soundfile
    name = name or path.name
    check_size(path, limits, name)
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
            if not 100 <= rate <= 400_000 or channels > 8:
                raise ValueError(f"{name} has {channels} channels at {rate} Hz; give mono or stereo at 8 to 192 kHz")
            most = int(limits.max_seconds * rate)
            wav = file.read(most + rate // 20 + 1, dtype="float32", always_2d=True).T     # A twentieth of a second of grace.
    except (soundfile.LibsndfileError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{name} cannot be read as audio; give a WAV, FLAC, OGG or MP3 file") from error
    if wav.shape[1] > most + rate // 20:
        raise ValueError(f"{name} is longer than {limits.max_seconds:g} s, which is the limit here; cut it first, or start "
                         "the app with a higher --max-seconds")
    if wav.shape[1] < SHORTEST * rate:
        raise ValueError(f"{name} lasts {wav.shape[1] / rate:.2f} s; give at least {SHORTEST:g} s")
    if channels > 2:
        wav = wav.mean(axis=0, keepdims=True)
    if not np.isfinite(wav).all():
        raise ValueError(f"{name} has samples that are infinite or not a number; export it again")
    return Recording(name, np.ascontiguousarray(wav[:, :most]), rate)


def check_size(path: Path, limits: Limits, name: str) -> None:
    """Raise ValueError if an uploaded file is larger than allowed or empty."""
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise ValueError(f"{name} has {size / 1e6:.1f} MB; the limit here is {limits.max_upload_mb:g} MB (--max-upload-mb)")
    if not size:
        raise ValueError(f"{name} is empty")
