"""Spectrogram pictures of audio clips, with a logarithmic frequency axis."""
from __future__ import annotations

import typing as tp
from pathlib import Path

import numpy as np

from .pictures import clip_axes, pyplot

LOWEST_HZ, ROWS = 60.0, 288     # frequency at the bottom of a picture; number of its rows
WINDOW_SECONDS = 0.096
FFT_FACTOR = 2                  # each window is zero-padded to this multiple of its length
HOPS_PER_WINDOW = 8
FLOOR_DB = 75.0                 # range below the loudest point that is drawn
WIDTH, HEIGHT = 1080, 480       # pixels


def spectrogram(wav: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute a power spectrogram on a logarithmic frequency axis.

    Args:
        wav: [samples] or [channels, samples]; channels are averaged.
        sample_rate: in Hz.
    Returns:
        Power [ROWS, frames] in dB relative to the loudest point, from -FLOOR_DB to 0, lowest frequency first; and the
        rows' edges [ROWS + 1] in Hz.
    """
    mono = np.atleast_2d(wav).mean(axis=0)
    size = int(WINDOW_SECONDS * sample_rate)
    mono = np.pad(mono, (size // 2, max(size // 2, size - len(mono))))
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::size // HOPS_PER_WINDOW]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), FFT_FACTOR * size)).T ** 2       # [bins, frames]
    edges = np.geomspace(LOWEST_HZ, sample_rate / 2, ROWS + 1)
    # The mean power between two edges, from the running sum over bins: rows narrower than a bin interpolate between bins,
    # and wider rows average all of theirs.
    total = np.concatenate([np.zeros((1, power.shape[1])), power.cumsum(axis=0)])
    position = edges / (sample_rate / (FFT_FACTOR * size))                                 # in bins
    below = np.minimum(position.astype(int), len(total) - 2)
    fraction = (position - below)[:, None]
    at_edges = total[below] * (1 - fraction) + total[below + 1] * fraction
    rows = np.diff(at_edges, axis=0) / np.diff(position)[:, None]
    rows /= max(rows.max(), 1e-12)
    return np.maximum(10 * np.log10(np.maximum(rows, 1e-12)), -FLOOR_DB), edges


def draw_spectrogram(path: Path, wav: np.ndarray, sample_rate: int) -> None:
    """Write the spectrogram of a clip as a PNG picture of WIDTH x HEIGHT pixels.

    Args:
        path: the PNG file.
        wav: [samples] or [channels, samples].
        sample_rate: in Hz.
    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, axes = clip_axes(WIDTH, HEIGHT, "frequency (kHz)", "the spectrogram needs matplotlib")
    draw_into(axes, wav, sample_rate)
    figure.savefig(path)
    pyplot().close(figure)


def draw_into(axes: tp.Any, wav: np.ndarray, sample_rate: int) -> None:
    """Draw the spectrogram of a clip into matplotlib axes; arguments are those of `draw_spectrogram`."""
    power, edges = spectrogram(wav, sample_rate)
    seconds = np.atleast_2d(wav).shape[1] / sample_rate
    axes.imshow(power, origin="lower", aspect="auto", cmap="magma", interpolation="bilinear", vmin=-FLOOR_DB, vmax=0,
                extent=(0.0, seconds, 0.0, float(ROWS)))
    ticks = [khz for khz in (0.1, 0.2, 0.5, 1, 2, 4, 8, 16) if edges[0] <= 1000 * khz <= edges[-1] * 1.001]
    rows = np.interp(np.log(np.multiply(ticks, 1000.0)), np.log(edges), np.arange(ROWS + 1))
    axes.set_yticks(rows, list(map(str, ticks)))
