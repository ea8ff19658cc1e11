"""Flux, clicks and steps, on tones with cuts."""
import math

import pytest
import torch

from magnet_plugin.metrics.continuity import click, spectral_flux, spectral_step

RATE = 16000


def tone(hz: float = 440.0, seconds: float = 1.0) -> torch.Tensor:
    """[1, 1, samples]."""
    return 0.3 * torch.sin(2 * torch.pi * hz * torch.arange(int(seconds * RATE)) / RATE)[None, None]


def joined(first: torch.Tensor, second: torch.Tensor, fade: int = 0) -> torch.Tensor:
    """The first half of one and the second half of the other, with a cross-fade of equal power."""
    place, made = RATE // 2, first.clone()
    made[..., place:] = second[..., place:]
    rising = torch.sin(torch.linspace(0, math.pi / 2, fade))
    part = slice(place, place + fade)
    made[..., part] = second[..., part] * rising + first[..., part] * rising.flip(0)
    return made


def test_a_cut_clicks_and_a_cross_fade_does_not() -> None:
    smooth, inverted = tone(), -tone()
    shifted = inverted.roll(9, dims=-1)                 # jumps in value
    for measure in (spectral_flux, click):
        whole, cut, faded = (float(measure(wav, RATE, 0.5))
                             for wav in (smooth, joined(smooth, shifted), joined(smooth, shifted, 320)))
        assert whole < 0.5 and cut > 10 and faded < cut / 4, measure.__name__
        elsewhere = float(measure(joined(smooth, shifted), RATE, 0.7))
        assert elsewhere < 0.5, "the place matters"


def test_an_onset_has_flux_but_does_not_click() -> None:
    noise = torch.randn(1, 1, RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    onset = joined(0.01 * noise, noise)
    assert float(spectral_flux(onset, RATE, 0.5)) > 5
    assert float(click(onset, RATE, 0.5)) < float(spectral_flux(onset, RATE, 0.5)) / 3


def test_a_step_is_a_lasting_difference_in_level() -> None:
    noise = torch.randn(2, 1, RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    quieter = noise * torch.tensor([1.0, 0.1])[:, None, None]
    steps = spectral_step(joined(noise, quieter), RATE, 0.5)
    assert float(steps[0]) < 2 and float(steps[1]) == pytest.approx(20, abs=2), "dB"


@pytest.mark.parametrize("measure", [spectral_flux, click, spectral_step])
def test_the_level_does_not_matter_and_silence_is_finite(measure: torch.nn.Module) -> None:
    wav = joined(tone(), tone(700))
    assert torch.allclose(measure(wav, RATE, 0.5), measure(0.01 * wav, RATE, 0.5), atol=1e-3)
    assert float(measure(0 * wav, RATE, 0.5)) == 0
    assert torch.equal(measure(wav.expand(1, 2, -1), RATE, 0.5), measure(wav, RATE, 0.5))
    with pytest.raises(ValueError, match="at=0.95 s needs 0.1 s of audio on either side"):
        measure(wav, RATE, 0.95)
