"""The codec's loss compares magnitudes."""
import math

import pytest
import torch

from magnet_plugin.modules.spectral_loss import SpectralLoss

RATE = 16000


def tone(frequency: float, phase: float = 0.0, level: float = 0.3) -> torch.Tensor:
    time = torch.arange(RATE) / RATE
    return (level * torch.sin(2 * math.pi * frequency * time + phase))[None, None]


@pytest.fixture(scope="module")
def loss() -> SpectralLoss:
    return SpectralLoss(RATE)


def test_equal_audio_costs_nothing_and_phase_next_to_nothing(loss: SpectralLoss) -> None:
    assert loss(tone(440), tone(440)) < 1e-5
    assert loss(tone(440, 2.0), tone(440)) < 0.2 < 1 < loss(tone(440 * 2 ** (1 / 12)), tone(440))


def test_it_is_the_mean_of_both_terms_over_the_resolutions() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(2, 1, 4096) * 0.1, torch.randn(2, 1, 4096) * 0.2
    expected = 0.0
    for n_fft in (1024, 256):
        loss, window = SpectralLoss(RATE, [n_fft]), torch.hann_window(n_fft)
        found, wanted = (torch.stft(x[:, 0], n_fft, n_fft // 4, window=window, return_complex=True).abs()
                         * 2 / window.sum() for x in (one, other))
        bands = getattr(loss, f"bands_{n_fft}").T
        assert bands.shape[0] == (80 if n_fft == 1024 else 20)
        expected += sum(float((found[i] - wanted[i]).norm() / wanted[i].norm()) for i in range(2)) / 2
        expected += float(((bands @ found + 3e-4).log() - (bands @ wanted + 3e-4).log()).abs().mean())
    assert float(SpectralLoss(RATE, [1024, 256])(one, other)) == pytest.approx(expected / 2, rel=1e-4)


def test_what_is_far_below_the_floor_costs_little(loss: SpectralLoss) -> None:
    assert loss(tone(440) + tone(3000, level=1e-6), tone(440)) < 0.01


def test_silence_has_a_finite_gradient(loss: SpectralLoss) -> None:
    wav = torch.zeros(2, 1, RATE, requires_grad=True)
    loss(wav, torch.zeros(2, 1, RATE)).backward()
    assert wav.grad is not None and wav.grad.isfinite().all()


def test_the_compression_solver_builds_it() -> None:
    from audiocraft.solvers import builders

    from ..conftest import compose
    cfg = compose("solver=compression/stft_16khz")
    assert builders.get_loss("spectral", cfg).n_ffts == (2048, 1024, 512, 256)
    assert isinstance(builders.get_loss("l1", cfg), torch.nn.L1Loss)
