"""Files of generated clips: audio, and a JSON file with the settings that reproduce it.

The audio file holds the settings too, in its comment.
"""
from __future__ import annotations

import hashlib
import json
import logging
import re
import typing as tp
from collections.abc import Mapping
from pathlib import Path

from ..environment import atomic_write

if tp.TYPE_CHECKING:
    import numpy as np
    import torch

logger = logging.getLogger(__name__)
PEAK = 0.99             # of full scale; louder clips are scaled down to it, not clipped
#: Audio formats by suffix, as soundfile names them, and their usual sample format; None is the only one of a format.
FORMATS: dict[str, tuple[str, str | None]] = {
    ".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", None), ".mp3": ("MP3", None)}
TOOK = "took_seconds"   # in the metadata: how long the generation took; only written to the JSON file
COMMENT_LIMIT = {".wav": 2046}      # bytes; libsndfile drops longer ones


def slug(text: str, length: int = 60) -> str:
    """Turn a text into a part of a file name: its words in lower case, joined by hyphens.

    Args:
        text: any text; punctuation is dropped, and an empty result becomes `clip`.
        length: maximum number of characters.

    >>> slug("A fast reel, in D major!")
    'a-fast-reel-in-d-major'
    """
    return "-".join(re.findall(r"[^\W_]+", text.lower()))[:length].strip("-") or "clip"


def reserve(folder: Path, text: str, suffix: str = ".wav") -> Path:
    """Reserve a new, numbered name made from a text, such as `a-reel-001.wav`, by creating its JSON file.

    Creation is atomic: no other call gets the same name, not even one in another process or with another suffix.

    Args:
        folder: created if it does not exist.
        text: description of the clip.
        suffix: of the audio file.
    Returns:
        Path of the audio file, which does not exist yet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem, number = slug(text), 1
    while True:
        path = folder / f"{stem}-{number:03d}{suffix}"
        try:
            if not path.exists():
                path.with_suffix(".json").touch(exist_ok=False)
                return path
        except FileExistsError:
            pass
        number += 1


def save_clip(path: Path, wav: np.ndarray, sample_rate: int, metadata: Mapping[str, tp.Any], *, scale: bool = True,
              subtype: str | None = None) -> float:
    """Write audio, and its metadata into its comment and as a JSON file of the same name.

    Each file appears under its name only when it is complete.

    Args:
        path: the audio file; its suffix, one of `FORMATS`, decides the format.
        wav: [channels, samples].
        sample_rate: in Hz.
        metadata: JSON values or NumPy numbers, such as text, seed and settings; `gain` is added.
        scale: scale the audio down as a whole if its peak exceeds PEAK; otherwise only samples beyond full scale change.
        subtype: sample format, as soundfile names it, where the format supports it; 16 bits by default.
    Returns:
        The gain that was applied; 1 unless the audio was too loud.
    Raises:
        ValueError: the audio contains NaN or infinite samples, or the format does not support it.
        TypeError: a metadata value cannot be written as JSON.
    """
    import numpy as np
    peak = float(np.abs(wav).max(initial=0.0))
    if not np.isfinite(peak):
        raise ValueError(f"{path.name}: the audio contains samples that are not finite; generate with a float32 model, or "
                         "lower max_cfg_coef")
    gain = min(1.0, PEAK / peak) if scale and peak > 0 else 1.0
    complete = {**metadata, "gain": round(gain, 4)}
    text = json.dumps(complete, indent=2, ensure_ascii=False, default=from_numpy)
    embedded = {name: value for name, value in complete.items() if name != TOOK}      # Equal clips are equal files.
    _write_audio(path, (wav * gain).T, sample_rate, json.dumps(embedded, default=from_numpy), subtype)
    with atomic_write(path.with_suffix(".json")) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return gain


def _write_audio(path: Path, wav: np.ndarray, sample_rate: int, comment: str, subtype: str | None) -> None:
    """Write [samples, channels] with a comment of ASCII characters."""
    import soundfile
    suffix = path.suffix.lower()
    name, usual = FORMATS[suffix]
    chosen = subtype if subtype and soundfile.check_format(name, subtype) else usual
    if len(comment) > COMMENT_LIMIT.get(suffix, len(comment)):
        logger.warning("%s: the settings are too long for the comment of a %s file; they are only in the JSON file next to "
                       "it", path.name, name)
        comment = ""
    with atomic_write(path) as temporary:
        try:
            with soundfile.SoundFile(temporary, "w", sample_rate, wav.shape[1], chosen, format=name) as file:
                if comment:
                    file.comment = comment
                for start in range(0, len(wav), sample_rate):       # libsndfile's Vorbis encoder crashes on long blocks.
                    file.write(wav[start:start + sample_rate])
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{path.name}: {name} files cannot hold {wav.shape[1]} channels at {sample_rate} Hz, or this "
                             "libsndfile does not write them; choose another format, such as WAV") from error


def digest(tokens: torch.Tensor) -> str:
    """Return a short digest of tokens [1, K, T]: equal clips have the same one."""
    return hashlib.blake2b(tokens.cpu().contiguous().numpy().astype("<i8").tobytes(), digest_size=8).hexdigest()


def from_numpy(value: tp.Any) -> tp.Any:
    """Convert a NumPy number for JSON; codecs, for example, compute their frame rate with NumPy."""
    if type(value).__module__ == "numpy":
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")
