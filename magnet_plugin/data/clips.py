"""Clips of a manifest folder: their metadata and their audio, read with soundfile and without AudioCraft."""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .manifests import MANIFEST_NAME, read_manifest


class Clip(NamedTuple):
    """An audio file and the metadata in the JSON file next to it (`instrument`, `description`, …)."""

    path: Path
    metadata: dict[str, Any]

    def field(self, name: str) -> str:
        """Return one metadata field as text.

        Raises:
            ValueError: the field is missing or empty.
        """
        if not self.metadata.get(name):
            raise ValueError(f"{self.path.with_suffix('.json')} has no `{name}`, which this metric needs for every clip; "
                             "add it, or use the folk data set (`magnet data folk`)")
        return str(self.metadata[name])


def read_clips(folder: str | Path, limit: int | None = None) -> list[Clip]:
    """Read the clips that the manifest in `folder` lists, in its order.

    Args:
        folder: manifest folder, such as `egs/evaluate` of the folk set.
        limit: maximum number of clips; None reads all.
    Raises:
        ValueError: the manifest is missing, damaged or empty, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} is too small; give 1 or more, or None for all clips")
    lines = read_manifest(Path(folder))[:limit]
    if not lines:
        raise ValueError(f"{Path(folder) / MANIFEST_NAME} lists no clips; give a manifest folder with at least one")
    return [read_clip(Path(line["path"])) for line in lines]


def read_clip(path: Path) -> Clip:
    """Read the metadata of the audio file `path`; it is empty if there is no JSON file next to it."""
    sidecar = path.with_suffix(".json")
    return Clip(path, dict(json.loads(sidecar.read_text(encoding="utf-8"))) if sidecar.exists() else {})


def load_audio(path: Path, sample_rate: int) -> torch.Tensor:
    """Load an audio file, mix it down to mono and resample it to `sample_rate` Hz: [1, T]."""
    import soundfile
    wav, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    return resample(torch.from_numpy(wav).mean(1)[None], rate, sample_rate)


def resample(wav: torch.Tensor, old: int, new: int) -> torch.Tensor:
    """Resample audio [..., T] from `old` to `new` Hz: [..., T * new / old]."""
    if old == new:
        return wav
    import julius
    return julius.resample_frac(wav, old, new)


def batches(clips: Sequence[Clip], sample_rate: int, size: int = 16) -> Iterator[tuple[list[Clip], torch.Tensor]]:
    """Load clips in order and yield them with their audio [B, 1, T], where B is at most `size`.

    A batch only holds clips of equal length, so that no clip is padded or cut.
    """
    held: list[Clip] = []
    audio: list[torch.Tensor] = []
    for clip in clips:
        wav = load_audio(clip.path, sample_rate)
        if held and (len(held) == size or wav.shape != audio[0].shape):
            yield held, torch.stack(audio)
            held, audio = [], []
        held.append(clip)
        audio.append(wav)
    if held:
        yield held, torch.stack(audio)
