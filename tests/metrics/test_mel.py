"""Mel power spectrograms, compared with a loop over frames in NumPy."""
import numpy as np
import torch
from torchaudio.functional import melscale_fbanks

from magnet_plugin.metrics.mel import HOP, N_FFT, decibels, mel_power


def test_mel_power_is_the_weighted_mean_of_the_power_spectrum() -> None:
    rate, bands = 8000, 32
    wav = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    found = mel_power(wav, rate, bands, low=100.0, high=3000.0)[0].numpy()
    padded = np.pad(wav[0].numpy(), N_FFT // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    filters = melscale_fbanks(N_FFT // 2 + 1, 100.0, 3000.0, bands, rate).numpy()
    assert found.shape == (bands, 1 + 2000 // HOP)
    for frame in range(found.shape[1]):
        power = np.abs(np.fft.rfft(padded[frame * HOP:][:N_FFT] * window)) ** 2
        expected = [np.average(power, weights=filters[:, band]) for band in range(bands)]
        np.testing.assert_allclose(found[:, frame], expected, rtol=1e-4)


def test_bands_without_a_bin_are_dropped() -> None:
    power = mel_power(torch.randn(1, 2000, generator=torch.Generator().manual_seed(0)), 48000, 256)
    assert 0 < power.shape[1] < 256 and (power > 0).all()


def test_decibels_have_a_floor() -> None:
    power = torch.tensor([[[1.0, 0.1, 1e-6, 0.0]]])
    expected = torch.tensor([[[0.0, -10.0, -20.0, -20.0]]])
    assert torch.allclose(decibels(power, torch.ones(1), 20), expected, atol=0.5)
    assert decibels(torch.zeros(1, 1, 4), torch.zeros(1), 20).isfinite().all()
