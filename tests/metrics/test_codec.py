"""SI-SNR and mel distance, compared with values calculated by hand."""
import math
import typing as tp

import pytest
import torch

from magnet_plugin.metrics.codec import measure_codec, mel_distance, si_snr

from ..helpers.tones import RATE, RoundingCodec, ToneSet


def noise_at(wav: torch.Tensor, snr: float, seed: int = 0) -> torch.Tensor:
    """Noise `snr` dB below [B, C, T], orthogonal to it."""
    centred = wav - wav.mean(-1, keepdim=True)
    noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(seed), dtype=wav.dtype)
    noise -= noise.mean(-1, keepdim=True)
    noise -= (noise * centred).sum(-1, keepdim=True) / centred.pow(2).sum(-1, keepdim=True) * centred
    return noise * centred.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True) * 10 ** (-snr / 20)


@pytest.fixture
def wav() -> torch.Tensor:
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    return torch.stack([(0.3 * torch.sin(2 * math.pi * pitch * time))[None] for pitch in (220, 500, 1700)])


@pytest.mark.parametrize("snr", [-5.0, 3.0, 20.0])
def test_si_snr_equals_that_of_the_added_noise(wav: torch.Tensor, snr: float) -> None:
    assert torch.allclose(si_snr(wav, wav + noise_at(wav, snr)), torch.full((3,), snr), atol=1e-4)


def test_si_snr_ignores_level_offset_and_sign(wav: torch.Tensor) -> None:
    noisy = wav + noise_at(wav, 7)
    for estimate in (noisy * 0.01, noisy * 30, noisy + 0.4, -noisy):
        assert torch.allclose(si_snr(wav, estimate), torch.full((3,), 7.0), atol=1e-4)
    assert torch.allclose(si_snr(wav * 9 - 1, noisy), torch.full((3,), 7.0), atol=1e-4)


def test_si_snr_is_per_clip_and_averages_channels(wav: torch.Tensor) -> None:
    mixed = torch.stack([wav[0] + noise_at(wav, 5)[0], wav[1] + noise_at(wav, 15)[1]])
    assert torch.allclose(si_snr(wav[:2], mixed), torch.tensor([5.0, 15.0]), atol=1e-4)
    stereo = [x.transpose(0, 1) for x in (wav[:2], mixed)]                       # [1, 2, T]
    assert torch.allclose(si_snr(*stereo), torch.tensor([10.0]), atol=1e-4)


def test_metrics_of_silence_are_finite() -> None:
    silence = torch.zeros(1, 1, RATE)
    assert si_snr(silence, silence).isfinite().all()
    assert mel_distance(silence, silence, RATE).item() == 0


def test_mel_distance_is_zero_on_itself_and_grows_with_noise(wav: torch.Tensor) -> None:
    assert mel_distance(wav, wav, RATE).abs().max() == 0
    distances = torch.stack([mel_distance(wav, wav + noise_at(wav, snr), RATE) for snr in (40, 30, 20, 10, 0)])
    assert (distances.diff(dim=0) > 0.5).all(), distances


def test_mel_distance_is_in_decibels() -> None:
    noise = torch.randn(2, 1, RATE, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mel_distance(noise, noise * 10 ** (-6 / 20), RATE), torch.tensor(6.0), atol=0.01)
    assert torch.allclose(mel_distance(noise, 2 * noise, RATE), mel_distance(noise / 9, 2 * noise / 9, RATE), atol=1e-3)


@pytest.mark.parametrize("measure", [si_snr, lambda a, b: mel_distance(a, b, RATE)])
def test_shapes_must_agree(measure: tp.Callable) -> None:
    with pytest.raises(ValueError, match=r"\[B, C, T\]"):
        measure(torch.zeros(1, 1, RATE), torch.zeros(1, 1, RATE + 1))


def test_a_codec_is_measured_on_the_clips_of_a_folder(tone_set: ToneSet) -> None:
    result = measure_codec(RoundingCodec(), tone_set(12, 2), limit=5)
    assert result["clips"] == 5 and result["audio_seconds"] == 5
    # Rounding to steps of 1/127 leaves noise of variance 1/(12 * 127^2) next to tones of 0.01 to 0.3 RMS.
    assert 8 < result["si_snr_db"] < 45 and result["mel_distance_db"] > 0.5
    assert all(type(value) in (int, float) for value in result.values())
