"""How smoothly a clip goes on at one place: clicks, and steps in level or timbre."""
from __future__ import annotations

import torch

from .mel import decibels

WINDOW, HOP = 0.016, 0.004          # seconds
REACH = 0.016                       # seconds on either side of the place in which the largest rise is looked for
APART = 0.02                        # seconds between a click and the frames that it is compared with
SIDE = 0.1                          # seconds on either side whose average spectra are compared
SPAN = 60.0                         # dB below the loudest point of the excerpt


def spectral_flux(wav: torch.Tensor, sample_rate: int, at: float) -> torch.Tensor:
    """Compute the largest spectral flux near a place: [B, C, samples] -> [B], in dB.

    The flux is the rise of the log spectrum from one frame (4 ms) to the next, averaged over frequency. A click raises it,
    and so does the onset of a note.

    Args:
        wav: audio.
        sample_rate: in Hz.
        at: the place in seconds.
    Raises:
        ValueError: less than 0.1 s of audio lies on one side of the place.
    """
    level, middle = _excerpt(wav, sample_rate, at)
    reach = round(REACH / HOP)
    return level.diff(dim=-1).clamp_min(0).mean(1)[:, middle - reach:middle + reach].amax(-1)


def click(wav: torch.Tensor, sample_rate: int, at: float) -> torch.Tensor:
    """Compute how far the log spectrum near a place stands out: [B, C, samples] -> [B], in dB.

    This is the difference to the spectrum 20 ms earlier or later, whichever is louder, averaged over frequency. Unlike the
    flux, it is small for an onset, after which the sound stays. Arguments and errors are those of `spectral_flux`.
    """
    level, middle = _excerpt(wav, sample_rate, at)
    reach, apart = round(REACH / HOP), round(APART / HOP)
    around = torch.maximum(level[..., :-2 * apart], level[..., 2 * apart:])                     # of frames from `apart` on
    peaks = (level[..., apart:-apart] - around).clamp_min(0).mean(1)
    return peaks[:, middle - apart - reach:middle - apart + reach + 1].amax(-1)


def spectral_step(wav: torch.Tensor, sample_rate: int, at: float) -> torch.Tensor:
    """Compute how far the average log spectra of the 0.1 s before and after a place differ: [B, C, samples] -> [B], in dB.

    Arguments and errors are those of `spectral_flux`.
    """
    level, middle = _excerpt(wav, sample_rate, at)
    return (level[..., :middle].mean(-1) - level[..., middle + 1:].mean(-1)).abs().mean(1)


def _excerpt(wav: torch.Tensor, sample_rate: int, at: float) -> tuple[torch.Tensor, int]:
    """Return the log spectrum around a place, in dB [B, bins, frames], and the frame of the place."""
    side, place = round(SIDE * sample_rate), round(at * sample_rate)
    if wav.dim() != 3 or not side <= place <= wav.shape[-1] - side:
        raise ValueError(f"at={at} s needs {SIDE} s of audio on either side; wav {list(wav.shape)} at {sample_rate} Hz "
                         f"lasts {wav.shape[-1] / sample_rate:.2f} s")
    size, hop = round(WINDOW * sample_rate), round(HOP * sample_rate)
    excerpt = wav.float().mean(1)[:, place - side:place + side]
    power = torch.stft(excerpt, size, hop, window=torch.hann_window(size, device=wav.device), pad_mode="reflect",
                       return_complex=True).abs().square()
    return decibels(power, power.amax((1, 2)), SPAN), side // hop
