"""How well a codec gives back what it was given: SI-SNR and mel distance, over a held-out split."""
from __future__ import annotations

import time
import typing as tp
from pathlib import Path

import torch

from ..data.clips import batches, read_clips
from .mel import decibels, mel_power

BANDS, SPAN = 64, 60.0      # mel distance: bands from 50 Hz up, dynamic range in dB


class Codec(tp.Protocol):
    """What is used of AudioCraft's CompressionModel."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def channels(self) -> int:
        """1 or 2."""

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, tp.Optional[torch.Tensor]]:
        """[B, C, samples] -> codes [B, K, T] and a scale or None."""

    def decode(self, codes: torch.Tensor, scale: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
        """[B, K, T] -> [B, C, samples]."""


def si_snr(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Scale-invariant signal-to-noise ratio in dB, higher is better: [B, C, T] each -> [B].

    Means are taken off; the part of `estimate` along `reference` counts as signal, the rest as noise. Neither's level
    matters.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape(reference, estimate)
    reference, estimate = (x.double() - x.double().mean(-1, keepdim=True) for x in (reference, estimate))
    along = (reference * estimate).sum(-1, keepdim=True) / reference.pow(2).sum(-1, keepdim=True).clamp_min(1e-20)
    signal = (along * reference).pow(2).sum(-1)
    noise = (estimate - along * reference).pow(2).sum(-1)
    return (10 * torch.log10((signal + 1e-20) / (noise + 1e-20))).mean(1).float()


def mel_distance(reference: torch.Tensor, estimate: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Mean absolute difference of log-mel spectrograms in dB, lower is better: [B, C, T] each -> [B].

    64 bands from 50 Hz to half the sample rate, window 1024 and hop 256 samples, power in dB levelling out 60 dB below
    the reference's loudest point. A change of both levels by the same factor changes nothing; a gain of the estimate
    counts.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape(reference, estimate)
    mels = [mel_power(x.flatten(0, 1).float(), sample_rate, BANDS) for x in (reference, estimate)]
    peak = mels[0].amax((1, 2))
    distance = (decibels(mels[0], peak, SPAN) - decibels(mels[1], peak, SPAN)).abs().mean((1, 2))
    return distance.view(reference.shape[:2]).mean(1)


def _same_shape(reference: torch.Tensor, estimate: torch.Tensor) -> None:
    if reference.shape != estimate.shape or reference.dim() != 3:
        raise ValueError(f"reference {list(reference.shape)} and estimate {list(estimate.shape)} must both be "
                         "[B, C, T]")


@torch.no_grad()
def reconstruct(codec: Codec, wav: torch.Tensor) -> torch.Tensor:
    """[B, 1, T] at the codec's rate -> the same shape after encoding and decoding, padding cut off."""
    device = next(iter(codec.parameters())).device if isinstance(codec, torch.nn.Module) else wav.device
    codes, scale = codec.encode(wav.expand(-1, codec.channels, -1).to(device))
    return codec.decode(codes, scale)[..., :wav.shape[-1]].mean(1, keepdim=True).cpu()


def measure_codec(codec: Codec, manifest_folder: tp.Union[str, Path], limit: tp.Optional[int] = None
                  ) -> dict[str, float]:
    """SI-SNR and mel distance over the first `limit` clips (None: all) of a split.

    Returns:
        `clips`; `audio_seconds` and `seconds`, how much audio and how long encoding and decoding it took;
        `si_snr_db`, `si_snr_db_median`, `mel_distance_db`.
    """
    snr, mel, clock, samples = [], [], 0.0, 0
    for _, wav in batches(read_clips(manifest_folder, limit), codec.sample_rate, 8):
        start = time.perf_counter()
        decoded = reconstruct(codec, wav)
        clock += time.perf_counter() - start
        samples += wav.shape[0] * wav.shape[-1]
        snr.append(si_snr(wav, decoded))
        mel.append(mel_distance(wav, decoded, codec.sample_rate))
    every = torch.cat(snr)
    return {"clips": len(every), "audio_seconds": samples / codec.sample_rate, "seconds": clock,
            "si_snr_db": float(every.mean()), "si_snr_db_median": float(every.median()),
            "mel_distance_db": float(torch.cat(mel).mean())}
