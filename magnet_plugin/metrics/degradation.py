"""Random degradation of mel spectrograms, the training augmentation of the instrument classifier.

Low-rate codecs attenuate high bands and fill the gaps with noise. A classifier that is trained on clips degraded in
this way recognises an instrument by more than its brightness, without having seen the output of any codec.
"""
from __future__ import annotations

import torch

MAX_CUT = 30.0                          # dB: largest attenuation of the high bands
RIPPLE, RIPPLE_POINTS = 2.0, 8          # dB (standard deviation) and number of points of a smooth random response
HISS = (15.0, 40.0)                     # dB below the clip's mean power: stationary noise
SMEAR = (0.0, 20.0)                     # dB below the neighbouring bands: noise that follows the music


def degrade(power: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Apply a random frequency response and random noise to each clip: mel power [B, bands, frames] -> same shape."""
    power = power * 10 ** (_response(power, generator) / 10)
    hiss = power.mean((1, 2), keepdim=True) * _attenuation(power, HISS, generator)
    nearby = torch.nn.functional.avg_pool1d(power.transpose(1, 2), 5, 1, 2, count_include_pad=False).transpose(1, 2)
    # The power of one bin of Gaussian noise has an exponential distribution.
    noise = torch.empty_like(power).exponential_(generator=generator)
    return power + (hiss + nearby * _attenuation(power, SMEAR, generator)) * noise


def _uniform(power: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Draw one number in [low, high] for each clip: [B, 1, 1]."""
    return low + (high - low) * torch.rand(len(power), 1, 1, generator=generator)


def _attenuation(power: torch.Tensor, span: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """Draw a factor of power for each clip from a range in dB: [B, 1, 1]."""
    return 10 ** (-_uniform(power, *span, generator) / 10)


def _response(power: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a frequency response in dB, [B, bands, 1]: flat up to a random corner, a slope down to a shelf, and ripple."""
    position = torch.linspace(0, 1, power.shape[1])[None, :, None]
    corner, width = _uniform(power, 0.1, 0.8, generator), _uniform(power, 0.03, 0.5, generator)
    shelf = -_uniform(power, 0.0, MAX_CUT, generator) * ((position - corner) / width).clamp(0, 1)
    points = RIPPLE * torch.randn(len(power), 1, RIPPLE_POINTS, generator=generator)
    ripple = torch.nn.functional.interpolate(points, size=power.shape[1], mode="linear").transpose(1, 2)
    return shelf + ripple
