"""Reconstruction quality of a codec over a held-out split: SI-SNR and mel distance."""
from __future__ import annotations

import time
import typing as tp
from pathlib import Path

import torch

from ..data.clips import batches, read_clips
from .mel import decibels, mel_power

BANDS, SPAN = 64, 60.0      # mel distance: bands from 50 Hz up, dynamic range in dB


class Codec(tp.Protocol):
    """The part of AudioCraft's `CompressionModel` that the metrics use."""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""

    @property
    def channels(self) -> int:
        """Number of audio channels, 1 or 2."""

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, tp.Optional[torch.Tensor]]:
        """Encode audio [B, C, samples] to codes [B, K, T] and a scale or None."""

    def decode(self, codes: torch.Tensor, scale: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
        """Decode codes [B, K, T] to audio [B, C, samples]."""

    def decode_latent(self, codes: torch.Tensor) -> torch.Tensor:
        """Convert codes [B, K, T] to continuous latents [B, D, T]."""


def si_snr(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Compute the scale-invariant signal-to-noise ratio in dB, averaged over channels: [B, C, T] each -> [B].

    Higher is better. Neither the level, the sign nor a constant offset of either signal matters.

    Raises:
        ValueError: the shapes differ.
    """
    from torchmetrics.functional.audio import scale_invariant_signal_noise_ratio
    _check_shapes(reference, estimate)
    return scale_invariant_signal_noise_ratio(estimate.double(), reference.double()).mean(1).float()


def mel_distance(reference: torch.Tensor, estimate: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Compute the mean absolute difference of two log-mel spectrograms in dB: [B, C, T] each -> [B].

    Lower is better. The spectrograms have 64 bands from 50 Hz to half the sample rate, a window of 1024 and a hop of 256
    samples, and a dynamic range of 60 dB below the loudest point of the reference. Scaling both signals by the same
    factor changes nothing; scaling only the estimate does.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(reference, estimate)
    mels = [mel_power(x.flatten(0, 1).float(), sample_rate, BANDS) for x in (reference, estimate)]
    peak = mels[0].amax((1, 2))
    distance = (decibels(mels[0], peak, SPAN) - decibels(mels[1], peak, SPAN)).abs().mean((1, 2))
    return distance.view(reference.shape[:2]).mean(1)


def _check_shapes(reference: torch.Tensor, estimate: torch.Tensor) -> None:
    if reference.shape != estimate.shape or reference.dim() != 3:
        raise ValueError(f"reference {list(reference.shape)} and estimate {list(estimate.shape)} must both have the shape "
                         "[B, C, T]")


def one_channel(codec: Codec) -> Codec:
    """Return the mono codec inside AudioCraft's wrapper for stereo, which has no `decode_latent`; or the codec itself."""
    if codec.channels == 1:
        return codec
    from audiocraft.models.encodec import InterleaveStereoCompressionModel
    return codec.model if isinstance(codec, InterleaveStereoCompressionModel) else codec


@torch.no_grad()
def encode(codec: Codec, wav: torch.Tensor) -> tuple[torch.Tensor, tp.Optional[torch.Tensor]]:
    """Encode mono audio [B, 1, T] at the codec's sample rate, on its device: codes [B, K, frames] and a scale or None."""
    device = next(iter(codec.parameters())).device if isinstance(codec, torch.nn.Module) else wav.device
    return codec.encode(wav.expand(-1, codec.channels, -1).to(device))


@torch.no_grad()
def reconstruct(codec: Codec, wav: torch.Tensor) -> torch.Tensor:
    """Encode and decode mono audio [B, 1, T] at the codec's sample rate; the result is trimmed to the same shape."""
    return codec.decode(*encode(codec, wav))[..., :wav.shape[-1]].mean(1, keepdim=True).cpu()


def measure_codec(codec: Codec, manifest_folder: tp.Union[str, Path], limit: tp.Optional[int] = None
                  ) -> dict[str, float]:
    """Measure SI-SNR and mel distance over a split.

    Args:
        manifest_folder: manifest folder of the split.
        limit: maximum number of clips; None measures all.
    Returns:
        `clips`, `audio_seconds`, `seconds` (time for encoding and decoding), `si_snr_db` and `mel_distance_db` (means
        over clips), `si_snr_db_median`.
    """
    snr, mel, clock, samples = [], [], 0.0, 0
    for _, wav in batches(read_clips(manifest_folder, limit), codec.sample_rate, 8):
        start = time.perf_counter()
        decoded = reconstruct(codec, wav)
        clock += time.perf_counter() - start
        samples += wav.shape[0] * wav.shape[-1]
        snr.append(si_snr(wav, decoded))
        mel.append(mel_distance(wav, decoded, codec.sample_rate))
    all_snr = torch.cat(snr)
    return {"clips": len(all_snr), "audio_seconds": samples / codec.sample_rate, "seconds": clock,
            "si_snr_db": float(all_snr.mean()), "si_snr_db_median": float(all_snr.median()),
            "mel_distance_db": float(torch.cat(mel).mean())}
