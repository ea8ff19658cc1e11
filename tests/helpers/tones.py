"""Tones with three timbres: manifest folders of real files, and replacements for a model and a codec."""
import json
import typing as tp
from pathlib import Path

import numpy as np
import soundfile
import torch

RATE = 16000
ToneSet = tp.Callable[[int, int], Path]
#: Amplitudes of the harmonics, and the decay in 1/s.
TIMBRES: dict[str, tuple[list[float], float]] = {
    "hollow": ([1, 0, 0.5, 0, 0.3, 0, 0.2, 0], 0.0),
    "bright": ([0.3, 0.4, 0.6, 0.8, 1, 0.9, 0.8, 0.7], 0.0),
    "plucked": ([1, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1], 8.0),
}


def tones(name: str, rng: np.random.Generator, seconds: float = 1.0) -> np.ndarray:
    """Four notes in a row: [T]."""
    amplitudes, decay = TIMBRES[name]
    time = np.arange(int(RATE * seconds / 4)) / RATE
    notes = []
    for pitch in rng.uniform(180, 500, 4):
        harmonics = sum(a * np.sin(2 * np.pi * pitch * k * time) for k, a in enumerate(amplitudes, 1))
        notes.append(harmonics * np.exp(-decay * time) * np.minimum(1, time * 100))
    return (np.concatenate(notes) * rng.uniform(0.02, 0.15)).astype(np.float32)


def write_tones(root: Path, count: int, seed: int) -> Path:
    """Write a manifest folder of `count` clips, each timbre in turn."""
    rng, lines = np.random.default_rng(seed), []
    for number in range(count):
        name = list(TIMBRES)[number % len(TIMBRES)]
        path = root / f"{number}.wav"
        soundfile.write(path, tones(name, rng), RATE)
        path.with_suffix(".json").write_text(json.dumps({"instrument": name, "description": f"a {name} tone"}))
        lines.append(json.dumps({"path": str(path), "duration": 1.0}))
    (root / "data.jsonl").write_text("\n".join(lines))
    return root


class ToneModel:
    """Plays the timbre that its text names, or a random one if not `follows_text`."""

    sample_rate = RATE

    def __init__(self, follows_text: bool = True) -> None:
        self.follows_text, self.seeds = follows_text, list[int]()
        self.compression_model = RoundingCodec()

    def generate(self, descriptions: tp.Sequence[str], *, seed: int) -> torch.Tensor:
        self.seeds.append(seed)
        rng = np.random.default_rng(seed)
        names = [text.split()[1] if self.follows_text else str(rng.choice(list(TIMBRES))) for text in descriptions]
        return torch.from_numpy(np.stack([tones(name, rng) for name in names]))[:, None]


class RoundingCodec:
    """Stores samples as 8-bit numbers, 16 to a frame. It adds a frame at the end, as SEANet may."""

    sample_rate, channels = RATE, 1

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        assert x.dim() == 3 and x.shape[1] == self.channels
        codes = torch.nn.functional.pad((x * 127).round(), (0, 16))
        return codes.unflatten(-1, (-1, 16))[:, 0].transpose(1, 2), None            # [B, 16, frames]

    def decode(self, codes: torch.Tensor, scale: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
        return codes.transpose(1, 2).flatten(1)[:, None] / 127

    def decode_latent(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(codes, dim=1).abs() / 127                               # [B, 9, frames]
