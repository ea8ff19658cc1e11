"""Masks for editing: what each keeps, how they combine, and masks that follow the sound."""
import logging
import random
import typing as tp

import numpy as np
import pytest
import torch

from magnet_plugin.models import keep
from magnet_plugin.models.keep import PRESETS, Clip, Keep

K, T, RATE = 4, 200, 50
CLIP = Clip(K, T, RATE)
FRAMES = torch.arange(T)


def frames_of(mask: Keep, clip: Clip = CLIP) -> list[int]:
    """The frames that a mask over time keeps in all codebooks of all samples."""
    kept = mask(clip)
    assert kept.shape == (clip.batch, clip.codebooks, clip.frames) and kept.dtype == torch.bool
    assert (kept == kept[:1, :1]).all(), "all codebooks and samples alike"
    return kept[0, 0].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("mask, expected", [
    (keep.everything(), range(T)), (keep.nothing(), ()),
    (keep.every(7), range(0, T, 7)), (keep.every(8), range(0, T, 8)), (keep.every(1), range(T)),
    (keep.every(10, offset=3), range(3, T, 10)),
    (keep.every(10, width=3), [t for t in range(T) if t % 10 in (9, 0, 1)]),
    (keep.every(10, width=2), [t for t in range(T) if t % 10 in (9, 0)]),
    (keep.every(10, width=3, offset=-1), [t for t in range(T) if t % 10 in (8, 9, 0)]),
    (keep.prefix(0.5), range(25)), (keep.prefix(0.519), range(25)), (keep.prefix(0), ()), (keep.prefix(9), range(T)),
    (keep.suffix(0.5), range(175, T)), (keep.suffix(0.519), range(175, T)), (keep.suffix(9), range(T)),
    (keep.spans([(1.0, 2.0)]), range(50, 100)), (keep.spans([(1.01, 1.99)]), range(51, 99)),
    (keep.spans([(1.001, 1.019)]), ()),
    (keep.spans([(0, 0.1), (3.9, 4)]), [*range(5), *range(195, T)]),
    (keep.outside([(1.0, 2.0)]), [*range(50), *range(100, T)]), (keep.outside([(1.01, 1.99)]), [*range(50), *range(100, T)]),
    (keep.outside([(0.3, 0.6), (2.9, 4)]), [*range(15), *range(30, 145)]),
], ids=str)
def test_masks_over_time_keep_exactly_these_frames(mask: Keep, expected: tp.Iterable[int]) -> None:
    """Kept seconds are rounded inwards to whole frames, seconds to generate again outwards."""
    assert frames_of(mask) == list(expected)


def test_seconds_become_frames_without_rounding_errors() -> None:
    for frame in range(T):
        seconds = frame / RATE
        assert CLIP.covering(0, seconds + 0.001) == (0, frame + 1)
        if frame:
            assert CLIP.covering(0, seconds) == CLIP.within(0, seconds) == (0, frame)
        assert CLIP.covering(seconds, CLIP.duration) == CLIP.within(seconds, CLIP.duration) == (frame, T)


def test_codebooks_are_kept_from_the_lowest() -> None:
    for k in range(K + 1):
        assert torch.equal(keep.codebooks(k)(CLIP), (torch.arange(K) < k)[None, :, None].expand(1, K, T))


def test_both_channels_of_interleaved_stereo_are_kept() -> None:
    stereo = Clip(2 * K, T, RATE, interleaved=2)
    for mask in (keep.codebooks(1), keep.strength(0.4), PRESETS["small"]):
        assert torch.equal(mask(stereo)[:, 0::2], mask(CLIP)) and torch.equal(mask(stereo)[:, 1::2], mask(CLIP))


@pytest.mark.parametrize("shape", [(T,), (K, T), (3, K, T)])
def test_an_array_of_ones_own_is_kept_as_it_is(shape: tuple[int, ...]) -> None:
    array = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5
    mask, clip = keep.tokens(array), Clip(K, T, RATE, batch=3)
    expected = array.expand(3, K, T).clone()
    array.fill_(True)
    assert torch.equal(mask(clip), expected), "later changes of the array do not matter"
    mask(clip).fill_(False)
    assert torch.equal(mask(clip), expected), "changes of a result do not matter"
    assert torch.equal(keep.tokens(expected.numpy())(clip), expected)


def draw(rng: random.Random, clip: Clip) -> Keep:
    """A random mask of any kind that needs no audio."""
    n = rng.randint(1, 20)
    times = sorted(rng.uniform(0, clip.duration) for _ in range(2))
    size = (clip.batch, clip.codebooks, clip.frames)
    own = torch.rand(size, generator=torch.Generator().manual_seed(rng.randrange(1000))) < 0.5
    return rng.choice([keep.every(n, rng.randint(1, n), rng.randint(-9, 9)), keep.codebooks(rng.randint(0, clip.codebooks)),
                       keep.prefix(rng.random()), keep.suffix(rng.random()), keep.spans([tuple(times)]),
                       keep.outside([tuple(times)]), keep.tokens(own), keep.strength(rng.random()), PRESETS["large"],
                       keep.every(2).dropout(rng.random(), rng.randrange(9))])


@pytest.mark.parametrize("seed", range(40))
def test_masks_combine_like_sets(seed: int) -> None:
    rng = random.Random(seed)
    clip = Clip(rng.randint(1, 5), rng.randint(40, 90), rng.choice([25, 50, 86.13]), batch=rng.randint(1, 3))
    a, b, c = (draw(rng, clip) for _ in range(3))
    case = f"{a}, {b}, {c} on {clip}"

    def same(one: Keep, other: Keep) -> bool:
        return torch.equal(one(clip), other(clip))

    assert torch.equal((a | b)(clip), a(clip) | b(clip)) and torch.equal((a & b)(clip), a(clip) & b(clip)), case
    assert torch.equal((~a)(clip), ~a(clip)) and same(a, a), case
    assert same(a & (b | c), a & b | a & c) and same(~(a | b), ~a & ~b) and same(~~a, a), case
    assert same(a | keep.nothing(), a) and same(a & keep.everything(), a), case
    assert same(a & ~a, keep.nothing()) and same(a | ~a, keep.everything()), case
    names = {name: getattr(keep, name) for name in dir(keep)}
    if "tokens" not in case:
        assert same(eval(str(a | ~b), names), a | ~b), "the name of a mask is the Python that makes it"


def test_dropout_forgets_a_share_of_the_frames_that_keep_anything() -> None:
    clip = Clip(K, T, RATE, batch=2)
    base = keep.every(4) & keep.codebooks(2) | keep.prefix(0.1)
    before = base(clip)
    for share, frames in ((0, 0), (0.25, 13), (0.4, 21), (1, 53)):
        after = base.dropout(share)(clip)
        lost = before & ~after
        assert not (after & ~before).any() and int(lost[0].any(dim=0).sum()) == frames
        assert not (lost.any(dim=1) & after.any(dim=1)).any(), "whole frames"
    less, more, other = (base.dropout(share, seed)(clip) for share, seed in ((0.3, 1), (0.6, 1), (0.3, 2)))
    assert not (more & ~less).any() and not torch.equal(less, other)
    assert torch.equal(less, base.dropout(0.3, 1)(clip))
    assert torch.equal(less[:1], base.dropout(0.3, 1)(CLIP)), "a sample does not depend on the batch"


def test_strength_runs_from_everything_to_nothing_and_never_keeps_more() -> None:
    shares = []
    for length in (1, 2, 50, T):
        clip = Clip(K, length, RATE)
        before = keep.strength(0)(clip)
        assert before.all() and not keep.strength(1)(clip).any()
        for step in range(1, 101):
            kept = keep.strength(step / 100)(clip)
            assert not (kept & ~before).any(), "less than at a lower strength"
            assert not (kept[:, 1:] & ~kept[:, :-1]).any(), "no token above one that is forgotten"
            before = kept
            shares.append(float(kept[0, 0].float().mean()) - (1 - step / 100))
    assert max(map(abs, shares[-100:])) < 0.02, "codebook 1 keeps the share 1 - x"
    half = keep.strength(0.5)(CLIP)[0]
    for k, row in enumerate(half):
        assert abs(float(row.float().mean()) - 0.5 ** (k + 1)) < 0.01, k
    blocks = half[0, :198].view(-1, 3)
    assert (blocks.all(dim=1) | ~blocks.any(dim=1)).all(), "spans of three frames are kept as a whole"
    assert 80 < half[0, :100].sum() + half[0, 50:150].sum() < 120, "spread evenly"


def clicks(bpm: float, seconds: float, sample_rate: int, start: float = 0.25, off_beat: float = 0.0
           ) -> tuple[torch.Tensor, np.ndarray]:
    """A click track with noise, [1, samples], and the times of its beats; `off_beat` is the time of another click."""
    noise = np.random.default_rng(0)
    wav = 0.001 * noise.standard_normal(round(seconds * sample_rate))
    times = np.arange(start, seconds - 0.05, 60 / bpm)
    length = sample_rate // 50
    click = np.exp(-np.arange(length) / (0.004 * sample_rate)) * noise.standard_normal(length)
    for time in [*times, *([off_beat] if off_beat else [])]:
        first = round(time * sample_rate)
        wav[first:first + length] += click
    return torch.from_numpy(wav).float()[None], times


def distance_to(times: np.ndarray, clip: Clip) -> torch.Tensor:
    """Seconds from the middle of each frame to the nearest of the times."""
    middle = (torch.arange(clip.frames) + 0.5) / clip.frame_rate
    return (middle[:, None] - torch.from_numpy(times)).abs().amin(dim=1)


@pytest.mark.parametrize("bpm, sample_rate", [(90, 16000), (120, 32000)])
def test_frames_around_the_beats_of_a_click_track_are_kept_and_no_others(bpm: int, sample_rate: int) -> None:
    off_beat = 0.25 + 6.4 * 60 / bpm
    wav, times = clicks(bpm, 8, sample_rate, off_beat=off_beat)
    clip = Clip(K, 400, RATE, audio=wav[None], sample_rate=sample_rate)
    for mask, events in ((keep.beats(0.1), times), (keep.onsets(0.1), np.append(times, off_beat))):
        kept, distance = torch.zeros(400, dtype=torch.bool), distance_to(events, clip)
        kept[frames_of(mask, clip)] = True
        inner = (torch.arange(400) - 200).abs() < 150                # librosa may miss or misplace a beat at the edges
        assert kept[inner & (distance < 0.015)].all(), f"{mask}: the click itself"
        assert not kept[inner & (distance > 0.09)].any(), f"{mask}: between clicks"
        assert 0.5 < kept.sum() / (len(times) * 5) < 1.3
    wide, narrow = (frames_of(keep.beats(width), clip) for width in (0.2, 0.1))
    assert set(narrow) < set(wide) and len(wide) > 1.6 * len(narrow)


def test_each_sample_of_a_batch_follows_its_own_audio(caplog: pytest.LogCaptureFixture) -> None:
    (fast, _), (slow, _) = clicks(150, 4, 16000), clicks(70, 4, 16000)
    audio = torch.stack([fast.expand(2, -1), slow.expand(2, -1), torch.zeros(2, 64000)])
    with caplog.at_level(logging.WARNING, "magnet_plugin"):
        kept = keep.onsets()(Clip(K, T, RATE, 3, audio, 16000))
    for i, wav in enumerate((fast, slow)):
        assert torch.equal(kept[i], keep.onsets()(Clip(K, T, RATE, 1, wav[None], 16000))[0])
    assert kept[0, 0].sum() > 1.5 * kept[1, 0].sum() > 0 and not kept[2].any()
    assert [record.getMessage() for record in caplog.records] == [
        "no onsets found in sample 2 of the batch, so nothing is kept around them"]
    assert not keep.beats()(Clip(K, T, RATE, 3, audio, 16000))[2].any()


def test_presets_keep_what_vampnets_do_at_this_codecs_scale() -> None:
    wav, times = clicks(120, 4, 16000)
    clip = Clip(K, T, RATE, audio=wav[None], sample_rate=16000)
    assert set(PRESETS) == {"small", "medium", "large", "timbre", "beat"}
    for name, n in (("small", 4), ("medium", 6), ("timbre", 2)):
        assert torch.equal(PRESETS[name](clip), (keep.every(n) & keep.codebooks(1))(clip)), name
    large, full = PRESETS["large"](clip), (keep.every(11) & keep.codebooks(1))(clip)
    assert not (large & ~full).any() and large.sum() == round(0.8 * int(full.sum()))
    beat = PRESETS["beat"](clip)
    assert torch.equal(beat, (keep.every(6) | keep.beats())(clip)) and beat.sum() > 1.3 * keep.every(6)(clip).sum()
    dac = Clip(14, 574, 44100 / 768)            # VampNet's own codec
    assert torch.equal(PRESETS["small"](dac), (keep.every(5) & keep.codebooks(4))(dac))
    assert torch.equal(PRESETS["timbre"](dac), (keep.every(2) & keep.codebooks(1))(dac))


BAD: list[tuple[str, tp.Callable[[], tp.Any]]] = [
    (r"every\(n=0\)", lambda: keep.every(0)), ("width=4 must be from 1 to n=3", lambda: keep.every(3, 4)),
    ("width=0 must be from 1 to n=3", lambda: keep.every(3, 0)), (r"codebooks\(-1\)", lambda: keep.codebooks(-1)),
    (r"codebooks\(5\): the clip has 4; give 0 to 4", lambda: keep.codebooks(5)(CLIP)),
    (r"prefix\(-1\) must be at least 0", lambda: keep.prefix(-1)), (r"suffix\(nan\)", lambda: keep.suffix(float("nan"))),
    (r"spans=\[\].*such as \[\(1.5, 3.0\)\]", lambda: keep.outside([])), (r"spans=\(1, 2\)", lambda: keep.spans((1, 2))),
    (r"span \(2, 4.1\) must satisfy 0 <= start < end <= 4", lambda: keep.outside([(2, 4.1)])(CLIP)),
    (r"span \(2, 2\)", lambda: keep.spans([(2, 2)])(CLIP)), (r"span \(-1, 2\)", lambda: keep.spans([(-1, 2)])(CLIP)),
    ("share=1.1 must be from 0 to 1", lambda: keep.every(2).dropout(1.1)),
    ("strength=-0.1 must be from 0 to 1", lambda: keep.strength(-0.1)), ("width=0", lambda: keep.strength(0.5, 0)),
    ("width_s=0 must be above 0", lambda: keep.beats(0)),
    (r"beats\(\) follows the sound: give the clip its audio", lambda: keep.beats()(CLIP)),
    ("torch.int64 of shape", lambda: keep.tokens([0, 1])), ("of shape", lambda: keep.tokens(torch.ones(1, 1, 1, 1).bool())),
    (r"\[3, 4, 200\], which does not fit .* \[1, 4, 200\]", lambda: keep.tokens(torch.ones(3, K, T).bool())(CLIP)),
    ("frames=0", lambda: Clip(K, 0, RATE)), ("frame_rate=0", lambda: Clip(K, T, 0)),
    ("interleaved=2", lambda: Clip(3, T, 50, interleaved=2)),
    (r"audio has the shape \[2, 1, 9\] and sample_rate=16000; give \[1,",
     lambda: Clip(K, T, RATE, 1, torch.ones(2, 1, 9), 16000)),
    ("sample_rate=None", lambda: Clip(K, T, RATE, 1, torch.ones(1, 1, 9))),
]


@pytest.mark.parametrize("message, call", BAD, ids=[message for message, _ in BAD])
def test_invalid_settings_are_refused_with_a_remedy(message: str, call: tp.Callable[[], tp.Any]) -> None:
    with pytest.raises(ValueError, match=message):
        call()
