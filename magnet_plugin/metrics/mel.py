"""Mel spectrogram in power: what the codec's and the instruments' measures look at."""
from __future__ import annotations

import functools
import typing as tp

import torch

N_FFT, HOP = 1024, 256      # samples: 64 and 16 ms at 16 kHz


@functools.lru_cache(maxsize=8)
def _filters(sample_rate: int, bands: int, low: float, high: float) -> torch.Tensor:
    """[N_FFT / 2 + 1, bands], each band's weights adding up to 1: white noise is flat."""
    from torchaudio.functional import melscale_fbanks
    filters = melscale_fbanks(N_FFT // 2 + 1, low, high, bands, sample_rate)
    filters = filters[:, filters.sum(0) > 0]       # low bands narrower than a bin are empty
    return filters / filters.sum(0, keepdim=True)


def mel_power(wav: torch.Tensor, sample_rate: int, bands: int, low: float = 50.0,
              high: tp.Optional[float] = None) -> torch.Tensor:
    """Mean power in each mel band: [B, T] -> [B, bands, frames], frames HOP samples apart.

    Args:
        wav: mono audio [B, T] of any length above 0; silence is put around it.
        sample_rate: in Hz.
        bands: how many; those narrower than a bin of the spectrum are left out.
        low: lower edge of the first band in Hz.
        high: upper edge of the last band in Hz; None is half the sample rate.
    """
    filters = _filters(sample_rate, bands, low, high or sample_rate / 2).to(wav)
    window = torch.hann_window(N_FFT).to(wav)
    spectrum = torch.stft(wav, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    power = torch.view_as_real(spectrum).pow(2).sum(-1)                                       # [B, F, frames]
    return (power.transpose(1, 2) @ filters).transpose(1, 2)


def decibels(power: torch.Tensor, peak: torch.Tensor, span: float) -> torch.Tensor:
    """10 log10 of [B, bands, frames] against `peak` [B], levelling out `span` dB below it; silence stays finite."""
    floor = 10 ** (-span / 10)
    return 10 * torch.log10(power / peak.clamp_min(1e-20)[:, None, None] + floor)
