"""Clips of a manifest folder: their facts and their audio. Reads with soundfile, knows nothing of AudioCraft."""
from __future__ import annotations

import gzip
import json
import typing as tp
from pathlib import Path

import soundfile
import torch


class Clip(tp.NamedTuple):
    """An audio file and what its JSON says of it (`instrument`, `description`, …)."""

    path: Path
    facts: dict[str, tp.Any]

    def fact(self, name: str) -> str:
        """One fact.

        Raises:
            ValueError: the JSON beside the audio lacks it.
        """
        if not self.facts.get(name):
            raise ValueError(f"{self.path.with_suffix('.json')} has no `{name}`: this measure needs it for every "
                             "clip, as the folk set has it.")
        return str(self.facts[name])


def read_clips(folder: tp.Union[str, Path], limit: tp.Optional[int] = None) -> list[Clip]:
    """The first `limit` clips (None: all) of the manifest in `folder`, in its order.

    Raises:
        ValueError: there is no manifest, it is empty, or `limit` is below 1.
    """
    paths = [Path(folder) / name for name in ("data.jsonl.gz", "data.jsonl")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise ValueError(f"{folder} holds no data.jsonl.gz: give a manifest folder, as egs/evaluate of the folk set.")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} leaves no clip: give at least 1, or None for all.")
    raw = path.read_bytes()
    lines = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode().splitlines()
    files = [Path(json.loads(line)["path"]) for line in lines if line.strip()][:limit]
    if not files:
        raise ValueError(f"{path} lists no clip.")
    return [read_clip(file) for file in files]


def read_clip(path: Path) -> Clip:
    """A clip by its audio file; without a JSON beside it, nothing is known of it."""
    facts = path.with_suffix(".json")
    return Clip(path, dict(json.loads(facts.read_text(encoding="utf-8"))) if facts.exists() else {})


def load_audio(path: Path, sample_rate: int) -> torch.Tensor:
    """A file mixed down to mono and resampled: [1, T]."""
    wav, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    return resample(torch.from_numpy(wav).mean(1)[None], rate, sample_rate)


def resample(wav: torch.Tensor, old: int, new: int) -> torch.Tensor:
    """[..., T] at `old` Hz -> [..., T * new / old] at `new` Hz."""
    if old == new:
        return wav
    import julius
    return julius.resample_frac(wav, old, new)


def batches(clips: tp.Sequence[Clip], sample_rate: int, size: int = 16) -> tp.Iterator[tuple[list[Clip], torch.Tensor]]:
    """Clips in their order with their audio [B, 1, T], B up to `size`; a batch holds clips of one length, so that none
    is padded or cut."""
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
