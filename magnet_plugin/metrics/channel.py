"""Real clips as a poor channel leaves them, drawn at random.

A classifier that learned from these too knows an instrument by more than its brightness. Codecs take high bands away
and fill the gaps with noise; no codec is asked here.
"""
from __future__ import annotations

import torch

CUT = 30.0                       # dB: the most that high bands lose
WOBBLE, KNOTS = 2.0, 8           # dB, number: a bumpy response on top
HISS = (15.0, 40.0)              # dB below the clip's mean: even noise
SMEAR = (0.0, 20.0)              # dB below the neighbouring bands: noise that follows the music


def poor_channel(power: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random response and random noise for each clip: mel power [B, bands, frames] -> the same shape."""
    power = power * 10 ** (_response(power, generator) / 10)
    hiss = power.mean((1, 2), keepdim=True) * _below(power, HISS, generator)
    around = torch.nn.functional.avg_pool1d(power.transpose(1, 2), 5, 1, 2, count_include_pad=False).transpose(1, 2)
    chance = torch.empty_like(power).exponential_(generator=generator)       # the power of one bin of noise
    return power + (hiss + around * _below(power, SMEAR, generator)) * chance


def _draw(power: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """One number in [low, high] for each clip: [B, 1, 1]."""
    return low + (high - low) * torch.rand(len(power), 1, 1, generator=generator)


def _below(power: torch.Tensor, span: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    return 10 ** (-_draw(power, *span, generator) / 10)


def _response(power: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """dB of each band, [B, bands, 1]: flat, then a slope down to a shelf; both at a random place."""
    place = torch.linspace(0, 1, power.shape[1])[None, :, None]
    corner, width = _draw(power, 0.1, 0.8, generator), _draw(power, 0.03, 0.5, generator)
    shelf = -_draw(power, 0.0, CUT, generator) * ((place - corner) / width).clamp(0, 1)
    knots = WOBBLE * torch.randn(len(power), 1, KNOTS, generator=generator)
    bumps = torch.nn.functional.interpolate(knots, size=power.shape[1], mode="linear").transpose(1, 2)
    return shelf + bumps
