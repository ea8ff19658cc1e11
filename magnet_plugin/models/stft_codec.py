"""A codec on STFT frames: an encoder and a decoder for AudioCraft's `EncodecModel`, much faster to train than SEANet.

    encodec.autoencoder=stft

The encoder only sees magnitudes, so that tokens spend no bits on phase, which nobody hears in a steady tone and which no
language model can predict. A decoder of convolutions cannot play a steady tone from such tokens with an inverse STFT,
because equal tokens would give equal frames, so only multiples of the frame rate. The decoder here therefore accumulates
phase: it predicts an amplitude and a frequency for one oscillator per frequency bin, as a phase vocoder does, and the level
of noise in each bin. `stft_features`, `oscillators` and `overlap_add` are the signal processing; the classes are the model.

Both networks are ConvNeXt blocks (arXiv 2201.03545) at the frame rate, as in Vocos (arXiv 2306.00814).
"""
from __future__ import annotations

import math
import typing as tp

import torch
from torch import nn
from torch.nn import functional as F

FLOOR = 1e-4                # amplitude below which the encoder hears nothing
MAX_DEVIATION = 0.6         # furthest frequency of an oscillator from its bin, in bins
START_LEVEL = -6.0          # natural logarithm of amplitudes before training
NOISE_FRAMES = 1021         # length of the fixed noise, after which it repeats


def stft_features(wav: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    """Compute log amplitudes of frames, each centred on the middle of a hop: [B, samples] -> [B, samples // hop, bins].

    Args:
        wav: audio, a multiple of `hop` long.
        n_fft: length of the Hann window.
        hop: samples between frames.
    """
    side = (n_fft - hop) // 2
    window = torch.hann_window(n_fft, device=wav.device)
    padded = F.pad(wav, (side, n_fft - hop - side))
    spectrum = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)
    amplitude = spectrum.abs() * (2 / window.sum())
    return (amplitude + FLOOR).log().transpose(1, 2)


def oscillators(amplitude: torch.Tensor, deviation: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """Compute the spectra of frames of sinusoids, one a bin, whose frames overlap by half.

    The window is the one whose spectrum is a raised cosine four bins wide, nearly a Hann window. Phases count from the
    frame's centre and advance by the mean of the frequencies of two neighbouring frames.

    Args:
        amplitude: of each sinusoid, [B, T, bins].
        deviation: its frequency's distance from the bin, in bins, [B, T, bins].
        phase: of each sinusoid before the first frame, in turns, [bins].
    Returns:
        Complex spectra [B, T, bins].
    """
    bins = torch.arange(amplitude.shape[-1], device=amplitude.device)
    middle = (deviation + F.pad(deviation, (0, 0, 1, 0))[:, :-1]) / 2
    turns = phase + 0.5 * middle.cumsum(1)                                      # a hop is half a period of one bin
    half = 0.5 * ((torch.arange(amplitude.shape[1], device=amplitude.device)[:, None] * bins) % 2)
    angle = 2 * math.pi * (turns + half)
    real, imaginary = amplitude * angle.cos(), amplitude * angle.sin()
    cosine, sine = (math.pi / 2 * deviation).cos(), (math.pi / 2 * deviation).sin()
    lobes = {-2: torch.where(deviation < 0, 1 - cosine, 0), -1: 1 - sine, 0: 1 + cosine, 1: 1 + sine,
             2: torch.where(deviation > 0, 1 - cosine, 0)}
    total = [torch.zeros_like(real), torch.zeros_like(real)]
    for offset, lobe in lobes.items():
        for i, part in enumerate((real, imaginary)):
            total[i] = total[i] + shift(part * lobe / 4, offset)
    return torch.complex(*total)


def shift(values: torch.Tensor, offset: int) -> torch.Tensor:
    """Move values along the last dimension, filling with zeros."""
    if offset >= 0:
        return F.pad(values, (offset, 0))[..., :values.shape[-1]]
    return F.pad(values, (0, -offset))[..., -offset:]


def overlap_add(spectra: torch.Tensor) -> torch.Tensor:
    """Turn spectra of frames that overlap by half into audio: complex [B, T, hop + 1] -> [B, T * hop].

    Phases count from the centre of a frame, and the centre of a frame is in the middle of its hop.
    """
    hop = spectra.shape[-1] - 1
    signs = 1 - 2 * (torch.arange(hop + 1, device=spectra.device) % 2)          # moves the origin to the centre
    frames = torch.fft.irfft(spectra * signs, dim=-1) * hop                     # [B, T, 2 * hop]
    audio = F.pad(frames[..., :hop], (0, 0, 0, 1)) + F.pad(frames[..., hop:], (0, 0, 1, 0))
    return audio.flatten(1)[:, hop // 2:hop // 2 + spectra.shape[1] * hop]


class Block(nn.Module):
    """ConvNeXt block: [B, T, dim] -> [B, T, dim]."""

    def __init__(self, dim: int, expansion: int, kernel: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.up, self.down = nn.Linear(dim, expansion * dim), nn.Linear(expansion * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix over time, then over channels, and add the result to the input."""
        mixed = self.norm(self.mix(x.transpose(1, 2)).transpose(1, 2))
        return x + self.scale * self.down(F.gelu(self.up(mixed)))


def network(inputs: int, dim: int, layers: int, outputs: int, expansion: int, kernel: int) -> nn.Sequential:
    """Build ConvNeXt blocks between two projections: [B, T, inputs] -> [B, T, outputs]."""
    blocks = [Block(dim, expansion, kernel) for _ in range(layers)]
    return nn.Sequential(nn.Linear(inputs, dim), nn.LayerNorm(dim), *blocks, nn.LayerNorm(dim), nn.Linear(dim, outputs))


class STFTEncoder(nn.Module):
    """Encode audio [B, 1, samples] to latents [B, dimension, ceil(samples / hop)].

    Args:
        dimension: size of a latent.
        dim: width of the network.
        layers: number of blocks.
        hop: samples per frame.
        n_ffts: window lengths of the input spectra: long ones resolve pitch, short ones time.
        expansion: width of a block's hidden layer, relative to `dim`.
        kernel: frames that a block's convolution spans.
    """

    def __init__(self, dimension: int, dim: int, layers: int, hop: int, n_ffts: tp.Sequence[int], expansion: int = 3,
                 kernel: int = 7) -> None:
        super().__init__()
        self.dimension, self.hop_length, self.n_ffts = dimension, hop, tuple(n_ffts)
        self.network = network(sum(n // 2 + 1 for n in n_ffts), dim, layers, dimension, expansion, kernel)

    def forward(self, wav: torch.Tensor) -> torch.Tensor:
        """Encode audio; the last frame is completed with zeros."""
        mono = F.pad(wav[:, 0], (0, -wav.shape[-1] % self.hop_length))
        features = torch.cat([stft_features(mono, n, self.hop_length) for n in self.n_ffts], -1)
        return self.network(features / 3 + 2).transpose(1, 2)


class STFTDecoder(nn.Module):
    """Decode latents [B, dimension, T] to audio [B, 1, T * hop].

    The same latents always give the same audio: noise and first phases are fixed.

    Args:
        dimension: size of a latent.
        dim: width of the network.
        layers: number of blocks.
        hop: samples per frame; there are `hop + 1` oscillators.
        expansion: width of a block's hidden layer, relative to `dim`.
        kernel: frames that a block's convolution spans.
    """

    phase: torch.Tensor
    noise: torch.Tensor

    def __init__(self, dimension: int, dim: int, layers: int, hop: int, expansion: int = 3, kernel: int = 7) -> None:
        super().__init__()
        self.bins = hop + 1
        self.network = network(dimension, dim, layers, 3 * self.bins, expansion, kernel)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("phase", torch.rand(self.bins, generator=generator), persistent=False)
        noise = torch.view_as_complex(torch.randn(NOISE_FRAMES, self.bins, 2, generator=generator))
        window = shift(noise, 1) + 2 * noise + shift(noise, -1)                 # a Hann window in time
        self.register_buffer("noise", window / window.abs().square().mean().sqrt(), persistent=False)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents."""
        amplitude, deviation, level = self.network(latents.transpose(1, 2)).float().chunk(3, -1)
        amplitude, level = ((START_LEVEL + x).clamp(max=1.0).exp() for x in (amplitude, level))
        tones = oscillators(amplitude, MAX_DEVIATION * deviation.tanh(), self.phase)
        frames = torch.arange(latents.shape[-1], device=latents.device)
        if self.training:
            frames = frames + torch.randint(NOISE_FRAMES, (), device=latents.device)
        return overlap_add(tones + level * self.noise[frames % NOISE_FRAMES])[:, None]
