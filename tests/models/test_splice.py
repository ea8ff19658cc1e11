"""Generated audio in a recording: where it is, how it fades, and how loud it is."""
import math

import pytest
import torch
from hypothesis import strategies as st

import magnet_plugin
from tests.helpers.drawn import drawn

magnet_plugin.register()
from magnet_plugin.models.splice import CONTEXT, FADE, MAX_GAIN, Canvas, Region, regions_of  # noqa: E402

RATE = 1000
FADED = round(FADE * RATE)


def noise(samples: int, channels: int = 1, level: float = 1.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed)) * level


@drawn(100, 2000, edited=st.lists(st.booleans(), min_size=1, max_size=40), merge=st.integers(0, 5))
def test_regions_are_the_runs_of_edited_frames(edited: list[bool], merge: int) -> None:
    regions = regions_of(torch.tensor(edited), merge)
    inside = {t for region in regions for t in range(region.start, region.stop)}
    assert inside >= {t for t, one in enumerate(edited) if one}
    assert all(edited[region.start] and edited[region.stop - 1] for region in regions)
    for region, following in zip(regions, regions[1:]):
        assert following.start - region.stop > merge
    for t in inside - {t for t, one in enumerate(edited) if one}:
        before = next(u for u in range(t, -1, -1) if edited[u])
        after = next(u for u in range(t, len(edited)) if edited[u])
        assert after - before - 1 <= merge, "a gap that is merged is short"


def test_runs_that_are_close_become_one() -> None:
    edited = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0, 1], dtype=torch.bool)
    assert regions_of(edited) == [Region(0, 1), Region(3, 5), Region(8, 9)]
    assert regions_of(edited, 2) == [Region(0, 5), Region(8, 9)] and regions_of(~edited[:1]) == []


@drawn(60, 1000, samples=st.integers(1, 400), first=st.integers(0, 399), last=st.integers(1, 400),
       start=st.integers(0, 399), stop=st.integers(1, 400), before=st.integers(0, 50), channels=st.integers(1, 2),
       level=st.sampled_from([0.0, 0.1, 1.0]))
def test_only_the_edited_samples_change_and_fades_reach_no_further_than_the_recording(
        samples: int, first: int, last: int, start: int, stop: int, before: int, channels: int, level: float) -> None:
    first, start = first % samples, start % samples
    last, stop = min(max(last, first + 1), samples), min(max(stop, start + 1), samples)
    recording = torch.zeros(channels, samples)
    recording[:, first:last] = noise(last - first, channels, level)
    canvas, given = Canvas(recording, RATE, first, last), recording.clone()
    piece_start = max(start - before, 0)
    piece = noise(samples - piece_start, seed=1)
    canvas.put(piece, RATE, piece_start / RATE, start / RATE, stop / RATE)
    result = canvas.audio
    assert torch.equal(recording, given), "the caller's audio is unchanged"
    assert torch.equal(result[:, :start], given[:, :start]) and torch.equal(result[:, stop:], given[:, stop:])
    new = piece[:, start - piece_start:stop - piece_start].expand(channels, -1)
    longest = min(FADED, (stop - start) // 2)
    fade_in = min(longest, max(last - start, 0)) if start > first else 0
    fade_out = min(longest, max(stop - first, 0)) if stop < last else 0
    assert result.isfinite().all()
    inside = slice(fade_in, stop - start - fade_out)
    middle, expected = result[:, start:stop][:, inside], new[:, inside]
    if start <= first and stop >= last:
        assert torch.equal(middle, expected), "without a recording around, nothing is faded or matched"
    elif expected.numel():
        ratios = middle / expected
        assert ratios.max() - ratios.min() < 1e-3 and 1 / MAX_GAIN - 1e-3 <= ratios.mean() <= MAX_GAIN + 1e-3


@pytest.mark.parametrize("samples", [400, 30])
def test_fades_have_equal_power_and_lie_inside_the_edited_span(samples: int) -> None:
    """Where only the piece sounds, and where only the recording does, the squares of the weights sum to 1."""
    start, stop = 300, 300 + samples
    ones, nothing = torch.ones(1, 1000), torch.zeros(1, 1000)
    weights = []
    for recording, piece in ((ones, nothing), (nothing, ones)):
        canvas = Canvas(recording, RATE)
        canvas.put(piece, RATE, 0.0, start / RATE, stop / RATE)
        weights.append(canvas.audio[0])
    old, new = weights
    assert torch.allclose(old.square() + new.square(), torch.ones(1000), atol=1e-5)
    count = min(FADED, samples // 2)
    assert (old[:start] == 1).all() and (old[stop:] == 1).all() and (new[start + count:stop - count] == 1).all()
    assert (old[start:start + count].diff() < 0).all() and (old[stop - count:stop].diff() > 0).all()
    assert ((old[start:start + count] > 0) & (old[start:start + count] < 1)).all()
    assert torch.allclose(old[start:stop], old[start:stop].flip(0), atol=1e-6)


def test_a_fade_is_as_short_as_the_recording_that_it_fades_from() -> None:
    """A new part overlaps by less than a fade with the end, or the beginning, of the recording."""
    for start, stop, faded in ((495, 1000, slice(495, 500)), (0, 505, slice(500, 505))):
        recording = torch.zeros(1, 1000)
        first, last = (0, 500) if start else (500, 1000)
        recording[:, first:last] = 1.0
        canvas = Canvas(recording, RATE, first, last)
        canvas.put(torch.zeros(1, 1000), RATE, 0.0, start / RATE, stop / RATE)
        weights = canvas.audio[0, faded] if start else canvas.audio[0, faded].flip(0)
        assert ((weights > 0) & (weights < 1)).all() and (weights.diff() < 0).all()
        assert weights[-1] < 0.3, "it ends softly"
        assert canvas.audio[0, :start].eq(1).all() and canvas.audio[0, 505 if not start else 1000:].eq(1).all()
        outside = canvas.audio[0, 500:] if start else canvas.audio[0, :500]
        assert outside.eq(0).all(), "there is nothing to fade from"


@pytest.mark.parametrize("level, piece_level, gain", [
    (0.5, 0.5, 1.0), (0.6, 0.5, 1.2), (0.5, 0.6, 1 / 1.2), (1.0, 0.1, MAX_GAIN), (0.1, 1.0, 1 / MAX_GAIN), (0.0, 0.5, 1.0),
    (0.5, 0.0, 1.0)])
def test_loudness_is_matched_where_both_hold_the_same_music(level: float, piece_level: float, gain: float) -> None:
    music = noise(5000)
    canvas = Canvas(level * music, RATE)
    piece = piece_level * music[:, 1000:4000]
    piece[:, 1000:2000] = 0.25
    canvas.put(piece, RATE, 1.0, 2.0, 3.0)
    assert torch.allclose(canvas.audio[:, 2000 + FADED:3000 - FADED], torch.tensor(0.25 * gain))


def test_loudness_is_matched_by_at_most_a_second_of_the_recording_on_either_side() -> None:
    assert CONTEXT == 1.0
    music = torch.ones(1, 6000)
    music[:, :1000], music[:, 4000:] = 100.0, 100.0
    canvas = Canvas(music, RATE)
    canvas.put(torch.ones(1, 6000), RATE, 0.0, 2.0, 3.0)
    assert torch.allclose(canvas.audio[:, 2500], torch.tensor(1.0))
    canvas = Canvas(torch.cat([torch.zeros(1, 2000), torch.ones(1, 3000)], dim=1), RATE, first=2000)
    canvas.put(1.25 * torch.ones(1, 5000), RATE, 0.0, 0.0, 2.5)
    assert torch.allclose(canvas.audio[:, 1000], torch.tensor(1.0)), "what is before the recording does not count"


@pytest.mark.parametrize("rate, channels", [(1000, 2), (1600, 1), (441, 2), (735, 1)])
def test_a_piece_is_converted_to_the_rate_and_the_channels_of_the_recording(rate: int, channels: int) -> None:
    """A tone goes on in phase."""
    def tone(rate: int, start: float, stop: float) -> torch.Tensor:
        return torch.sin(2 * math.pi * 20 * torch.arange(round(start * rate), round(stop * rate)) / rate)[None]

    recording = tone(rate, 0, 3).expand(channels, -1)
    canvas = Canvas(recording, rate)
    canvas.put(tone(RATE, 0, 2.5), RATE, 0.0, 1.0, 2.0)
    assert canvas.audio.shape == recording.shape
    begin, end, faded = rate, 2 * rate, round(FADE * rate)
    outside = torch.ones(3 * rate, dtype=torch.bool)
    outside[begin:end] = False
    assert torch.equal(canvas.audio[:, outside], recording[:, outside])
    inside = slice(begin + faded, end - faded)
    assert (canvas.audio[:, inside] - recording[:, inside]).abs().max() < 0.02


def test_a_piece_may_be_a_sample_short_after_resampling() -> None:
    canvas = Canvas(torch.zeros(1, 441), 441)
    canvas.put(torch.ones(1, 999), 1000, 0.0, 0.0, 1.0)
    assert canvas.audio.shape == (1, 441) and canvas.audio.isfinite().all()


@pytest.mark.gpu
def test_the_recording_may_be_on_another_device_than_the_piece() -> None:
    canvas = Canvas(torch.zeros(1, 1000), RATE)
    canvas.put(torch.ones(1, 1000, device="cuda"), RATE, 0.0, 0.2, 0.5)
    assert canvas.audio.device.type == "cpu" and canvas.audio[0, 300] == 1
