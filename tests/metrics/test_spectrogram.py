"""Spectrogram pictures."""
import numpy as np
import pytest

from magnet_plugin.metrics import spectrogram


@pytest.mark.parametrize("rate, freq", [(16000, 100.0), (16000, 440.0), (32000, 5000.0), (16000, 7500.0)])
def test_tone_is_brightest_at_its_frequency(rate, freq):
    tone = np.sin(2 * np.pi * freq * np.arange(rate) / rate)
    power, edges = spectrogram.spectrogram(np.stack([tone, tone]), rate)
    row = int(power[:, power.shape[1] // 2].argmax())
    assert edges[row] - 8 < freq < edges[row + 1] + 8           # the window resolves about 8 Hz
    assert power.max() == 0 and power.min() >= -spectrogram.FLOOR_DB


def test_click_is_equally_bright_at_all_frequencies():
    click = np.zeros(16000)
    click[8000] = 1.0
    power, _ = spectrogram.spectrogram(click, 16000)
    column = power[:, power.sum(axis=0).argmax()]
    assert column.max() - column.min() < 0.1                    # dB: rows of all widths have the same level


def test_burst_is_drawn_at_its_time():
    burst = np.zeros(32000)
    burst[24000:24100] = 1.0                                    # at 1.5 s of 2 s
    power, _ = spectrogram.spectrogram(burst, 16000)
    assert power.sum(axis=0).argmax() / (power.shape[1] - 1) * 2.0 == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("length", [1, 1536, 80000])
def test_silence_of_any_length_is_drawn(length, tmp_path):
    silence = np.zeros((1, length))
    assert np.isfinite(spectrogram.spectrogram(silence, 16000)[0]).all()
    spectrogram.draw_spectrogram(tmp_path / "x.png", silence, 16000)
    header = (tmp_path / "x.png").read_bytes()[:24]
    size = (int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big"))
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and size == (spectrogram.WIDTH, spectrogram.HEIGHT)
