"""Audio files that a command reads."""
from __future__ import annotations

import dataclasses
import typing as tp
from pathlib import Path

if tp.TYPE_CHECKING:
    import numpy as np
    import torch

#: Sample formats of lossless files, as soundfile names them; an edited recording keeps its own.
LOSSLESS = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")


@dataclasses.dataclass(frozen=True)
class Recording:
    """The contents of an audio file.

    Attributes:
        path: the file.
        audio: float32 [channels, samples].
        sample_rate: in Hz.
        subtype: sample format, as soundfile names it.
    """
    path: Path
    audio: np.ndarray
    sample_rate: int
    subtype: str

    @property
    def seconds(self) -> float:
        """Length."""
        return self.audio.shape[-1] / self.sample_rate

    def tensor(self) -> torch.Tensor:
        """The audio as a tensor."""
        import torch
        return torch.from_numpy(self.audio)


def check_exists(option: str, path: Path) -> None:
    """Raise ValueError unless there is such a file; `option` names the argument."""
    if not path.is_file():
        raise ValueError(f"{option} {path}: no such file; give an audio file")


def read(option: str, path: Path, seconds: float | None = None) -> Recording:
    """Read an audio file, without torch.

    Args:
        option: name of the argument, for errors.
        path: a file that soundfile reads.
        seconds: length to read from its beginning; None reads all of it.
    Raises:
        ValueError: the file is not audio, is empty, or has samples that are not finite.
    """
    import soundfile
    check_exists(option, path)
    try:
        with soundfile.SoundFile(path) as file:
            count = -1 if seconds is None else round(seconds * file.samplerate)
            wav = file.read(count, dtype="float32", always_2d=True)
            recording = Recording(path, wav.T.copy(), file.samplerate, file.subtype)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{option} {path}: soundfile cannot read this file as audio; convert it to WAV or FLAC") from error
    if not recording.audio.size:
        raise ValueError(f"{option} {path}: the file contains no audio")
    import numpy as np
    if not np.isfinite(recording.audio).all():
        raise ValueError(f"{option} {path}: the file has samples that are infinite or not a number; export it again")
    return recording
