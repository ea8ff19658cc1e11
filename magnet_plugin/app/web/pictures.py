"""The spectrogram of a clip as a picture without axes, which the page shows below the waveform."""
from pathlib import Path

import numpy as np

from ...metrics.pictures import pyplot
from ...metrics.spectrogram import FLOOR_DB, spectrogram

WIDEST = 1600           # pixels


def save_spectrogram(path: Path, wav: np.ndarray, sample_rate: int) -> None:
    """Write the spectrogram of [channels, samples] as a PNG file whose width is the length of the clip."""
    power, _ = spectrogram(wav, sample_rate)
    step = -(-power.shape[1] // WIDEST)
    count = power.shape[1] // step * step
    columns = power[:, :count].reshape(len(power), -1, step).max(axis=2)
    pyplot().imsave(path, columns, cmap="magma", origin="lower", vmin=-FLOOR_DB, vmax=0)
