"""The codec on STFT frames: its signal processing against plain sinusoids, and its place in AudioCraft."""
import math

import pytest
import torch

from magnet_plugin.models import checkpoints
from magnet_plugin.models.loaders import load_codec
from magnet_plugin.models.stft_codec import STFTDecoder, STFTEncoder, oscillators, overlap_add, stft_features

from ..conftest import compose

HOP, RATE = 320, 16000


def peak(wav: torch.Tensor) -> float:
    """Frequency of the largest partial, in Hz."""
    spectrum = torch.fft.rfft(wav * torch.hann_window(len(wav)), 1 << 17).abs()
    return float(spectrum.argmax()) * RATE / (1 << 17)


@pytest.mark.parametrize("frequency", [100.0, 262.0, 440.0, 478.0, 987.77, 3000.0])
def test_equal_frames_give_a_steady_tone_of_any_frequency(frequency: float) -> None:
    """An inverse STFT of equal frames would only give multiples of 50 Hz."""
    position = frequency / (RATE / (2 * HOP))
    amplitude, deviation = torch.zeros(1, 60, HOP + 1), torch.zeros(1, 60, HOP + 1)
    amplitude[..., round(position)], deviation[..., round(position)] = 0.5, position - round(position)
    wav = overlap_add(oscillators(amplitude, deviation, torch.zeros(HOP + 1)))[0, HOP:-HOP]
    assert peak(wav) == pytest.approx(frequency, abs=0.2)
    level = wav.unfold(0, 4 * HOP, HOP).square().mean(1).mul(2).sqrt()
    assert level.min() > 0.47 and level.max() < 0.53


def test_the_centre_of_a_frame_is_the_middle_of_its_hop() -> None:
    """An impulse is loudest in the frame that holds it, and a single frame sounds where it was analysed."""
    wav = torch.zeros(1, 20 * HOP)
    wav[0, 7 * HOP + HOP // 2] = 1.0
    assert all(stft_features(wav, n_fft, HOP)[0].mean(1).argmax() == 7 for n_fft in (512, 2048))
    amplitude = torch.zeros(1, 20, HOP + 1)
    amplitude[0, 7, 20] = 1.0
    sound = overlap_add(oscillators(amplitude, torch.zeros_like(amplitude), torch.zeros(HOP + 1)))[0]
    energy = sound.square()
    assert float((energy * torch.arange(len(energy))).sum() / energy.sum()) == pytest.approx(7.5 * HOP, abs=1)
    assert sound[:6 * HOP].abs().max() == 0 and sound[9 * HOP:].abs().max() == 0


def test_features_are_amplitudes_that_no_phase_changes() -> None:
    time = torch.arange(20 * HOP) / RATE
    tones = torch.stack([0.25 * torch.sin(2 * math.pi * 500 * time + phase) for phase in (0.0, 1.0, 2.5)])
    features = stft_features(tones, 2048, HOP)[:, 5:-5]
    assert torch.allclose(features.amax(-1).exp(), torch.tensor(0.25), rtol=0.02)
    assert torch.allclose(features[0, :, 60:68], features[2, :, 60:68], atol=0.01)


@pytest.mark.parametrize("samples,frames", [(320, 1), (16000, 50), (16001, 51)])
def test_every_sample_has_a_frame(samples: int, frames: int) -> None:
    encoder, decoder = STFTEncoder(8, 16, 1, HOP, [512, 1024]), STFTDecoder(8, 16, 1, HOP)
    latents = encoder(torch.randn(2, 1, samples))
    assert latents.shape == (2, 8, frames)
    assert decoder(latents).shape == (2, 1, frames * HOP)


def test_decoding_is_repeatable_and_training_draws_other_noise() -> None:
    decoder, latents = STFTDecoder(8, 16, 1, HOP).eval(), torch.randn(1, 8, 40)
    assert torch.equal(decoder(latents), decoder(latents))
    decoder.train()
    assert not torch.equal(decoder(latents), decoder(latents))


def test_gradients_reach_every_weight() -> None:
    encoder, decoder = STFTEncoder(8, 16, 2, HOP, [512]), STFTDecoder(8, 16, 2, HOP)
    stft_features(decoder(encoder(torch.randn(2, 1, 6400)))[:, 0], 1024, HOP).square().mean().backward()
    for network in (encoder, decoder):
        for name, weight in network.named_parameters():
            assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.abs().max() > 0, name


def test_audiocraft_builds_and_loads_it_like_any_codec(tmp_path) -> None:
    from audiocraft.models import EncodecModel, builders
    cfg = compose("solver=compression/stft_16khz", "device=cpu", "stft.dim=16", "rvq.bins=64")
    codec = builders.get_compression_model(cfg)
    assert isinstance(codec, EncodecModel) and isinstance(codec.encoder, STFTEncoder)
    codec(torch.randn(8, 1, 16000))                                     # fills the codebooks
    assert (codec.sample_rate, codec.frame_rate, codec.num_codebooks, codec.cardinality) == (RATE, 50, 4, 64)
    checkpoints.release(codec.state_dict(), cfg, tmp_path / checkpoints.CODEC_FILE)
    loaded, wav = load_codec(tmp_path), torch.randn(1, 1, 16000)
    codes, scale = loaded.encode(wav)
    assert codes.shape == (1, 4, 50) and scale is None
    assert torch.equal(loaded.decode(codes), codec.eval().decode(codes))
