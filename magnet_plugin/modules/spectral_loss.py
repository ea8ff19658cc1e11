"""A loss of codecs that compares magnitudes only, at several resolutions.

It differs from AudioCraft's `mrstft` and `msspec` in cost, because every spectrum is computed once and serves both terms,
and in its floor, which leaves out what is far below the loudest parts. (AudioCraft's `mrstft` returns a vector of one
element, which its loss balancer rejects.)
"""
from __future__ import annotations

import typing as tp

import torch
from torch import nn


class SpectralLoss(nn.Module):
    """Mean over resolutions of spectral convergence and of the L1 distance of log-mel amplitudes.

    Spectral convergence, |X - Y| / |Y| over all bins of a clip, is dominated by loud partials and tells pitches apart; the
    logarithms weigh quiet and loud bands alike.

    Args:
        sample_rate: in Hz.
        n_ffts: lengths of the Hann windows, a quarter of which is the hop.
        n_mels: mel bands per 1024 samples of window; shorter windows have fewer.
        floor: amplitude (of a full-scale sine 1) that is added before the logarithm.
    """

    def __init__(self, sample_rate: int, n_ffts: tp.Sequence[int] = (2048, 1024, 512, 256), n_mels: int = 80,
                 floor: float = 3e-4) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks
        self.n_ffts, self.floor = tuple(n_ffts), floor
        for n in self.n_ffts:
            self.register_buffer(f"window_{n}", torch.hann_window(n), persistent=False)
            bands = melscale_fbanks(n // 2 + 1, 0.0, sample_rate / 2, min(n_mels, n_mels * n // 1024), sample_rate)
            self.register_buffer(f"bands_{n}", bands, persistent=False)

    def amplitudes(self, wav: torch.Tensor, n_fft: int) -> torch.Tensor:
        """Compute the amplitude of each bin: [B, samples] -> [B, frames, bins]."""
        window = getattr(self, f"window_{n_fft}")
        spectrum = torch.stft(wav, n_fft, n_fft // 4, window=window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power + 1e-12).sqrt().transpose(1, 2) * (2 / window.sum())

    def forward(self, estimate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Compare audio [B, C, samples] with a reference of the same shape; returns a scalar."""
        total = estimate.new_zeros(())
        for n_fft in self.n_ffts:
            found = self.amplitudes(estimate.flatten(0, 1), n_fft)
            with torch.no_grad():
                wanted = self.amplitudes(reference.flatten(0, 1), n_fft)
            bands = getattr(self, f"bands_{n_fft}")
            norm = wanted.square().sum((1, 2)).sqrt().clamp_min(1e-3)
            total = total + ((found - wanted).square().sum((1, 2)).clamp_min(1e-12).sqrt() / norm).mean()
            total = total + ((found @ bands + self.floor).log() - (wanted @ bands + self.floor).log()).abs().mean()
        return total / len(self.n_ffts)
