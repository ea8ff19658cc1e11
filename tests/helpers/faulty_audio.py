"""Real audio files, sound and faulty ones."""
import os
import typing as tp
from pathlib import Path

import numpy as np
import soundfile

RATE, SECONDS = 8000, 2.0
WAVE = np.sin(np.arange(int(RATE * SECONDS)) * 0.1) * 0.5


def plain(path: Path, wave: np.ndarray = WAVE, rate: int = RATE, **options: tp.Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, **options)


def cut(path: Path, share: float) -> None:
    """Write a file and keep only a share of its bytes."""
    plain(path)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])


def renamed(path: Path, ending: str) -> None:
    """Write a file of another format under the name."""
    plain(path.with_suffix(ending))
    os.replace(path.with_suffix(ending), path)


#: Unusual files that can be used, by name and how to write them.
USABLE: dict[str, tp.Callable[[Path], None]] = {
    "silent.wav": lambda path: plain(path, WAVE * 0),
    "clipped.wav": lambda path: plain(path, np.sign(WAVE)),
    "truncated.wav": lambda path: cut(path, 0.4),
    "8-bit.wav": lambda path: plain(path, subtype="PCM_U8"),
    "24-bit.wav": lambda path: plain(path, subtype="PCM_24"),
    "64-bit.wav": lambda path: plain(path, subtype="DOUBLE"),
    "96-kHz.wav": lambda path: plain(path, np.repeat(WAVE, 12), 96000),
    "7-channel.wav": lambda path: plain(path, np.stack([WAVE] * 7, 1)),
    "7-channel.flac": lambda path: plain(path, np.stack([WAVE] * 7, 1)),
    "an-mp3.wav": lambda path: renamed(path, ".mp3"),
    "an-ogg.wav": lambda path: renamed(path, ".ogg"),
}
#: Files that cannot be used.
UNUSABLE: dict[str, tp.Callable[[Path], None]] = {
    "zero-length.wav": lambda path: plain(path, WAVE[:0]),
    "zero-length.flac": lambda path: plain(path, WAVE[:0]),
    "empty.wav": lambda path: path.write_bytes(b"") and None,
    "header-only.wav": lambda path: cut(path, 0.001),
    "truncated.flac": lambda path: cut(path, 0.4),
    "text.wav": lambda path: path.write_text("some notes\n" * 100) and None,
    "a-flac.wav": lambda path: renamed(path, ".flac"),
    "folder.wav": lambda path: path.mkdir(),
    "vanished.wav": lambda path: None,
}
