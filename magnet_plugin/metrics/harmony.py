"""Pitch classes of audio: how they change over time, how far two clips are apart, and which key they suggest."""
from __future__ import annotations

import functools

import torch

from ..data.folk.captions import MODES, TONICS

WINDOW, HOP = 0.256, 0.1            # seconds; neighbouring semitones are resolved from about 130 Hz on
LOW, HIGH = 130.0, 2000.0           # Hz
SILENCE = 1e-8                      # energy in a frame below which it has no pitch
#: Krumhansl and Kessler's ratings of how well each pitch class, from the tonic up, fits into a key.
PROFILES = {"major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
            "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)}


def chroma(wav: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Compute the energy of each pitch class, from C up, ten times a second: [B, C, samples] -> [B, 12, frames].

    Raises:
        ValueError: the shape is wrong.
    """
    if wav.dim() != 3:
        raise ValueError(f"wav {list(wav.shape)} must have the shape [B, C, samples]")
    size, mono = round(WINDOW * sample_rate), wav.detach().float().cpu().mean(1)
    power = torch.stft(mono, size, round(HOP * sample_rate), window=torch.hann_window(size), pad_mode="constant",
                       return_complex=True).abs().square()                                      # [B, bins, frames]
    frequency = torch.arange(power.shape[1]) * sample_rate / size
    used = (frequency >= LOW) & (frequency <= HIGH)
    classes = (69 + 12 * (frequency[used] / 440).log2()).round().long() % 12
    return torch.zeros(len(power), 12, power.shape[-1]).index_add_(1, classes, power[:, used])


def chroma_distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Compute the mean over frames of 1 - cosine of two chromas: [B, 12, frames] each -> [B], from 0 to 1.

    A frame that is silent in only one of them counts 1; one that is silent in both is ignored.

    Raises:
        ValueError: the shapes differ.
    """
    if one.shape != other.shape:
        raise ValueError(f"chromas {list(one.shape)} and {list(other.shape)} must have the same shape")
    sounding = [part.sum(1) > SILENCE for part in (one, other)]                                 # [B, frames]
    similarity = torch.cosine_similarity(one, other, dim=1, eps=1e-20) * (sounding[0] & sounding[1])
    counted = sounding[0] | sounding[1]
    return ((1 - similarity) * counted).sum(-1) / counted.sum(-1).clamp_min(1)


def in_key(energy: torch.Tensor, key: str) -> torch.Tensor:
    """Compute the share of energy in the scale of a key, such as `B flat major`: [..., 12] -> [...], from 0 to 1.

    Raises:
        ValueError: there is no such key.
    """
    return energy[..., scale(key)].sum(-1) / energy.sum(-1).clamp_min(SILENCE)


def scale(key: str) -> list[int]:
    """Return the pitch classes of a key, such as `B flat major`; 0 is C.

    Raises:
        ValueError: there is no such key.
    """
    tonic, _, mode = key.rpartition(" ")
    if tonic not in TONICS or mode not in MODES:
        raise ValueError(f"key={key!r} must be one of {', '.join(TONICS)} and one of {', '.join(MODES)}")
    return [(TONICS.index(tonic) + step) % 12 for step in MODES[mode]]


def estimate_key(energy: torch.Tensor) -> list[str]:
    """Estimate keys by correlation with Krumhansl and Kessler's profiles: [B, 12] -> names such as `B flat major`.

    Mixolydian and dorian tunes get the name of the major or minor key that they resemble most.
    """
    names, profiles = _profiles()
    centred = energy.double().cpu() - energy.double().cpu().mean(-1, keepdim=True)
    return [names[best] for best in (centred @ profiles.T).argmax(-1).tolist()]


@functools.lru_cache(maxsize=1)
def _profiles() -> tuple[list[str], torch.Tensor]:
    """Names of the 24 keys, and their normalised profiles [24, 12]."""
    names, rows = [], []
    for mode, profile in PROFILES.items():
        for tonic, name in enumerate(TONICS):
            names.append(f"{name} {mode}")
            row = torch.tensor(profile, dtype=torch.float64).roll(tonic)
            rows.append((row - row.mean()) / (row - row.mean()).norm())
    return names, torch.stack(rows)
