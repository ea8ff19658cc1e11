"""Mel power spectrograms, shared by the codec metrics and the instrument classifier."""
from __future__ import annotations

import functools
import typing as tp

import torch

N_FFT, HOP = 1024, 256      # samples: 64 and 16 ms at 16 kHz


@functools.lru_cache(maxsize=8)
def _mel_spectrogram(sample_rate: int, bands: int, low: float, high: float) -> torch.nn.Module:
    """torchaudio's transform with filters that each sum to 1, so that white noise has equal power in every band."""
    from torchaudio.transforms import MelSpectrogram
    transform = MelSpectrogram(sample_rate, N_FFT, hop_length=HOP, f_min=low, f_max=high, n_mels=bands, pad_mode="constant")
    filters = transform.mel_scale.fb                        # [N_FFT / 2 + 1, bands]
    filters = filters[:, filters.sum(0) > 0]
    transform.mel_scale.fb = filters / filters.sum(0, keepdim=True)
    return transform


def mel_power(wav: torch.Tensor, sample_rate: int, bands: int, low: float = 50.0,
              high: tp.Optional[float] = None) -> torch.Tensor:
    """Compute the mean power in each mel band: [B, T] -> [B, bands, frames], with frames `HOP` samples apart.

    Args:
        wav: mono audio [B, T], zero-padded at both ends.
        sample_rate: in Hz.
        bands: number of bands. Bands that are narrower than one bin of the spectrum are dropped.
        low: lower edge of the first band in Hz.
        high: upper edge of the last band in Hz; None is half the sample rate.
    """
    return _mel_spectrogram(sample_rate, bands, low, high or sample_rate / 2).to(wav.device)(wav)


def decibels(power: torch.Tensor, peak: torch.Tensor, span: float) -> torch.Tensor:
    """Convert power [B, bands, frames] to dB relative to `peak` [B], with a soft floor at `-span` dB.

    The floor keeps silence finite.
    """
    floor = 10 ** (-span / 10)
    return 10 * torch.log10(power / peak.clamp_min(1e-20)[:, None, None] + floor)
