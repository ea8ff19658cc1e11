"""Files of generated clips: WAV audio, and a JSON file with the settings that reproduce it."""
from __future__ import annotations

import json
import re
import typing as tp
from collections.abc import Mapping
from pathlib import Path

import numpy as np

PEAK = 0.99             # of full scale; louder clips are scaled down to it, not clipped


def slug(text: str, length: int = 60) -> str:
    """Turn a text into a part of a file name: its words in lower case, joined by hyphens.

    Args:
        text: any text; punctuation is dropped, and an empty result becomes `clip`.
        length: maximum number of characters.

    >>> slug("A fast reel, in D major!")
    'a-fast-reel-in-d-major'
    """
    return "-".join(re.findall(r"[^\W_]+", text.lower()))[:length].strip("-") or "clip"


def reserve(folder: Path, text: str) -> Path:
    """Create an empty WAV file with a new, numbered name made from a text, such as `a-reel-001.wav`.

    Creation is atomic: no other call gets the same name, not even one in another process.

    Args:
        folder: created if it does not exist.
        text: description of the clip.
    Returns:
        Path of the new file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem, number = slug(text), 1
    while True:
        path = folder / f"{stem}-{number:03d}.wav"
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            number += 1


def save_clip(path: Path, wav: np.ndarray, sample_rate: int, metadata: Mapping[str, tp.Any], *, scale: bool = True,
              subtype: str | None = None) -> float:
    """Write audio as WAV, and its metadata as a JSON file of the same name.

    Args:
        path: the WAV file.
        wav: [channels, samples].
        sample_rate: in Hz.
        metadata: JSON values or NumPy numbers, such as text, seed and settings; `gain` is added.
        scale: scale the audio down as a whole if its peak exceeds PEAK; otherwise only samples beyond full scale change.
        subtype: sample format, as soundfile names it; 16 bits by default.
    Returns:
        The gain that was applied; 1 unless the audio was too loud.
    Raises:
        ValueError: the audio contains NaN or infinite samples.
        TypeError: a metadata value cannot be written as JSON.
    """
    import soundfile
    peak = float(np.abs(wav).max(initial=0.0))
    if not np.isfinite(peak):
        raise ValueError(f"{path.name}: the audio contains samples that are not finite; generate with a float32 model, or "
                         "lower max_cfg_coef")
    gain = min(1.0, PEAK / peak) if scale and peak > 0 else 1.0
    text = json.dumps({**metadata, "gain": round(gain, 4)}, indent=2, ensure_ascii=False, default=_from_numpy)
    soundfile.write(path, (wav * gain).T, sample_rate, subtype=subtype or "PCM_16")
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return gain


def _from_numpy(value: tp.Any) -> tp.Any:
    """Convert a NumPy number for JSON; codecs, for example, compute their frame rate with NumPy."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")
