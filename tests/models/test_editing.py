"""Editing: what is known stays as it is, what is free is generated, and every edit can be made again."""
import inspect
import math
import typing as tp

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from magnet_plugin import MAGNeT
from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.models import keep, splice

from ..helpers.drawn import drawn
from ..helpers.recordings import (
    FRAMES,
    RATE,
    Recording,
    check,
    check_again,
    copied,
    encoded,
    noise,
    recordings,
    spans_of,
    texts_of,
)
from ..helpers.toy_codec import ToyCodec
from ..helpers.toy_magnets import FEW, WAYS, toy_magnet

HOP = 16                                                        # the toy codec's
Models = dict[str, MAGNeT]


@pytest.fixture(scope="module")
def models() -> Models:
    return {way: toy_magnet(way) for way in WAYS}


@pytest.fixture
def model(models: Models) -> tp.Iterator[MAGNeT]:
    yield models["lean"]
    models["lean"].set_generation_params(**FEW, **WAYS["lean"][1])


TEXTS = ("a fast reel", "a slow waltz on the flute", None)
texts = st.sampled_from([None, TEXTS])
ways = st.sampled_from(list(WAYS))


@drawn(15, 300, way=ways, recording=recordings(), texts=texts, seed=st.integers(0, 2 ** 40), data=st.data())
def test_inpainting_changes_the_spans_only(models: Models, way: str, recording: Recording, texts: tp.Any, seed: int,
                                           data: st.DataObject) -> None:
    batch, model = len(recording.audio), models[way]
    shared = data.draw(st.booleans())
    given = data.draw(spans_of(recording.seconds)) if shared else [
        data.draw(spans_of(recording.seconds) if row == 0 else st.one_of(st.just([]), spans_of(recording.seconds)))
        for row in range(batch)]
    state = torch.get_rng_state()
    edit = model.inpaint(recording.audio, recording.rate, given, **texts_of(texts, batch), seed=seed)
    assert torch.equal(torch.get_rng_state(), state), "the global random state was used"
    check(model, recording, edit)
    assert edit.audio.shape == recording.audio.shape
    for row in range(batch):
        own = tp.cast(tp.Any, given if shared else given[row])
        for frame in range(recording.frames):
            overlaps = any(start < (frame + 1) / FRAMES - 1e-6 and end > frame / FRAMES + 1e-6 for start, end in own)
            assert edit.known[row, :, frame].eq(not overlaps).all(), (frame, own)
        for start, end in edit.spans[row]:
            inside = slice(round(start * recording.rate), round(end * recording.rate))
            assert not torch.equal(edit.audio[row][:, inside], recording.audio[row][:, inside]), "spans are generated"
    check_again(model, recording, edit)


@drawn(10, 200, way=ways, recording=recordings(), texts=texts, before=st.sampled_from([0.0, 0.01, 0.3, 1.3]),
       after=st.sampled_from([0.0, 0.015, 0.7, 1.2]))
def test_extending_keeps_the_recording_but_for_its_outermost_frames(
        models: Models, way: str, recording: Recording, texts: tp.Any, before: float, after: float) -> None:
    before = before if before + after else 0.2
    model, rate, batch = models[way], recording.rate, len(recording.audio)
    edit = model.extend(recording.audio, rate, before, after, **texts_of(texts, batch), seed=3)
    lead, trail = math.ceil(before * FRAMES), math.ceil(after * FRAMES)
    offset, samples = round(lead / FRAMES * rate), recording.audio.shape[-1]
    check(model, recording, edit, offset, lead)
    full = recording.frames / FRAMES <= recording.seconds
    first, last = lead + (lead > 0), lead + recording.frames - (0 if not trail else 1 if full else 2)
    expected = torch.zeros_like(edit.known)
    expected[..., first:last] = True
    assert torch.equal(edit.known, expected) and edit.tokens.shape[-1] == lead + recording.frames + trail
    length = round(edit.tokens.shape[-1] / FRAMES * rate) if trail else offset + samples
    assert edit.audio.shape[-1] == length >= samples + math.floor((before + after) * rate) - 1
    begin, end = round(first / FRAMES * rate), round(last / FRAMES * rate) if trail else length
    assert torch.equal(edit.audio[..., begin:end], recording.audio[..., begin - offset:end - offset])
    assert end - begin >= samples - 3 * rate / FRAMES
    assert edit.spans == [[*([(0.0, first / FRAMES)] if lead else []),
                           *([(last / FRAMES, edit.tokens.shape[-1] / FRAMES)] if trail else [])]] * batch or trail
    check_again(model, recording, edit)


@drawn(10, 200, way=ways, recording=recordings(), texts=texts, shape=st.sampled_from(["T", "KT", "BKT"]),
       share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), seed=st.integers(0, 999))
def test_a_variation_keeps_the_tokens_of_a_mask(models: Models, way: str, recording: Recording, texts: tp.Any, shape: str,
                                                share: float, seed: int) -> None:
    sizes = {"B": len(recording.audio), "K": ToyCodec.K, "T": recording.frames}
    kept = torch.rand([sizes[one] for one in shape], generator=torch.Generator().manual_seed(seed)) < share
    model = models[way]
    edit = model.vary(recording.audio, recording.rate, keep=kept.numpy() if seed % 2 else kept,
                      **texts_of(texts, sizes["B"]), seed=seed)
    check(model, recording, edit)
    assert torch.equal(edit.known, kept.expand(len(recording.audio), ToyCodec.K, recording.frames))
    for spans in edit.spans:
        for (_, end), (start, _) in zip(spans, spans[1:]):
            assert start - end > 0.5, "the recording does not come back for a moment"
    check_again(model, recording, edit, alone=shape != "BKT")
    kept[...] = True                                            # The edit does not depend on the caller's array.
    check_again(model, recording, edit, alone=False)


@drawn(8, 100, way=ways, recording=recordings(), strength=st.sampled_from([0.0, 0.3, 1.0, "small", "large", "timbre"]))
def test_a_variation_by_strength_or_preset(models: Models, way: str, recording: Recording, strength: tp.Any) -> None:
    how = {"preset" if isinstance(strength, str) else "strength": strength}
    model = models[way]
    edit = model.vary(recording.audio, recording.rate, **how, seed=1)
    check(model, recording, edit)
    check_again(model, recording, edit)
    assert edit.known.all() == (strength == 0) and edit.known.any() == (strength != 1)
    if strength == 0:
        assert torch.equal(edit.audio, recording.audio) and edit.spans == [[]] * len(recording.audio)


@drawn(10, 200, way=ways, recording=recordings(), texts=texts, share=st.floats(0.01, 1.0))
def test_only_the_seam_of_a_loop_changes_and_it_includes_the_wrap(models: Models, way: str, recording: Recording,
                                                                  texts: tp.Any, share: float) -> None:
    model, samples, rate = models[way], recording.audio.shape[-1], recording.rate
    seam = recording.seconds / 2 * share
    edit = model.loop(recording.audio, rate, seam, **texts_of(texts, len(recording.audio)), seed=4)
    assert edit.audio.shape == recording.audio.shape and edit.method == "loop"
    edited = torch.zeros(samples, dtype=torch.bool)
    for start, end in edit.spans[0]:
        assert 0 <= start < end <= recording.seconds + 1e-6
        edited[round(start * rate):round(end * rate)] = True
    frame = rate / FRAMES
    turned_back = edited.roll(-(samples // 2))
    assert torch.equal(edit.audio[..., ~edited], recording.audio[..., ~edited])
    assert edited[0] and edited[-1], "the seam includes the wrap"
    assert turned_back.diff().sum() <= 2, "in one piece"
    assert seam * rate - 1 <= edited.sum() <= seam * rate + 2 * frame + 2, "as long as asked for, in whole frames"
    assert len(edit.spans[0]) == 2 and edit.spans == [edit.spans[0]] * len(recording.audio)
    check_again(model, recording, edit)


def test_the_seam_of_a_loop_is_reported_to_the_sample(model: MAGNeT) -> None:
    """Where a frame ends half-way between two samples, too: 50 frames a second at 441 Hz."""
    for samples in range(440, 460):
        recording = noise(samples, seed=samples).audio
        edit = model.loop(recording, 441, samples / 441 / 128, seed=4)
        edited = torch.zeros(samples, dtype=torch.bool)
        for start, end in edit.spans[0]:
            edited[round(start * 441):round(end * 441)] = True
        assert torch.equal(edit.audio[..., ~edited], recording[..., ~edited]), samples


def test_a_loop_is_filled_in_with_the_end_before_and_the_start_after_it(model: MAGNeT, monkeypatch: pytest.MonkeyPatch
                                                                        ) -> None:
    recording, seen = noise(RATE, seed=5), list[tp.Any]()
    generate = model.lm.generate
    monkeypatch.setattr(model.lm, "generate",
                        lambda **arguments: seen.append(copied(arguments["known_tokens"])) or generate(**arguments))
    model.loop(recording.audio, RATE, 0.2, seed=1)
    tokens, known = seen[0].tokens[0], seen[0].known[0, 0]
    assert known.nonzero()[:, 0].tolist() == [*range(20), *range(30, 50)]
    half = encoded(model, Recording(recording.audio.roll(-RATE // 2, dims=-1), RATE))[0]
    assert torch.equal(tokens[:, known], half[:, known])


def test_generated_audio_is_as_loud_as_the_recording_and_fades_into_it(model: MAGNeT) -> None:
    """The toy codec hears means only, which are quieter than the noise that they are of."""
    recording = noise(2 * RATE)
    edit = model.inpaint(recording.audio, RATE, [(0.5, 1.0)], seed=1)
    decoded, faded = model.compression_model.decode(edit.tokens)[0], round(splice.FADE * RATE)
    context = torch.cat([decoded[:, :400], decoded[:, 800:]], dim=-1)
    recorded = torch.cat([recording.audio[0, :, :400], recording.audio[0, :, 800:]], dim=-1)
    gain = min(float((recorded.square().sum() / context.square().sum()).sqrt()), splice.MAX_GAIN)
    inside = slice(400 + faded, 800 - faded)
    assert gain > 1.2 and torch.allclose(edit.audio[0, :, inside], gain * decoded[:, inside])
    for edge in (400, 799):
        old, new, result = recording.audio[0, 0, edge], gain * decoded[0, edge], edit.audio[0, 0, edge]
        assert (result - old).abs() < 0.1 * (new.abs() + old.abs()), "a fade begins with the recording"


def test_the_recording_between_two_spans_decides_about_loudness_and_not_what_was_generated(model: MAGNeT) -> None:
    """Spans of a loud recording are next to each other; what was recorded there is known no more."""
    recording = noise(2 * RATE)
    audio = recording.audio.clone()
    audio[..., round(0.9 * RATE):round(1.5 * RATE)] = 0.0       # silent where the second span is, and in between
    edit = model.inpaint(audio, RATE, [(0.5, 0.9), (0.92, 1.5)], seed=1)
    alone = model.inpaint(audio, RATE, [(0.5, 1.5)], seed=1)
    assert edit.spans[0] == [(0.5, 0.9), (0.92, 1.5)]
    for one in (edit, alone):
        piece = model.compression_model.decode(one.tokens)[0, :, 500:600]
        gain = float((one.audio[0, :, 500:600] / piece).mean())
        before = model.compression_model.decode(one.tokens)[0, :, :400]
        after = [] if one is alone else [model.compression_model.decode(one.tokens)[0, :, 720:736]]
        if one is alone:
            after = [model.compression_model.decode(one.tokens)[0, :, 1200:]]
        heard = torch.cat([before, *after], dim=-1).square().sum()
        recorded = torch.cat([audio[0, :, :400], audio[0, :, 720:736] if one is edit else audio[0, :, 1200:]], dim=-1)
        assert gain == pytest.approx(min(float((recorded.square().sum() / heard).sqrt()), splice.MAX_GAIN), rel=1e-3)


def test_recordings_of_other_types_and_channels_give_the_same_edit(model: MAGNeT) -> None:
    audio = torch.from_numpy((np.random.default_rng(0).uniform(-0.5, 0.5, (1, 1, RATE)) * 2 ** 15).astype("int16"))
    expected = model.inpaint(audio, RATE, [(0.2, 0.4)], seed=1)
    floats = audio.float() / 2 ** 15
    for one in (audio.numpy(), floats, floats.double(), floats[0], floats.requires_grad_()):
        edit = model.inpaint(one, RATE, [(0.2, 0.4)], seed=1)
        assert torch.equal(edit.audio, expected.audio) and torch.equal(edit.tokens, expected.tokens)
        assert not edit.audio.requires_grad
    twice = model.inpaint(floats.detach().expand(1, 2, RATE), RATE, [(0.2, 0.4)], seed=1)
    assert torch.equal(twice.tokens, expected.tokens) and torch.equal(twice.audio, expected.audio.expand(1, 2, RATE))


def test_a_mono_recording_comes_back_mono_from_a_stereo_codec() -> None:
    model = toy_magnet()
    model.compression_model = ToyCodec(channels=2)
    recording = noise(RATE)
    edit = model.inpaint(recording.audio, RATE, [(0.2, 0.4)], seed=1)
    check(model, recording, edit)
    assert edit.audio.shape == (1, 1, RATE)


def test_an_edit_without_a_seed_follows_the_global_random_state(model: MAGNeT) -> None:
    recording = noise(RATE)
    edits = []
    for state in (1, 1, 2):
        torch.manual_seed(state)
        edits.append(model.vary(recording.audio, RATE, 1.0))
    assert edits[0].seeds is None and torch.equal(edits[0].tokens, edits[1].tokens)
    assert not torch.equal(edits[0].tokens, edits[2].tokens)


def test_texts_and_negative_texts_lead_an_edit(model: MAGNeT) -> None:
    recording = noise(RATE)

    def tokens(**arguments: tp.Any) -> torch.Tensor:
        return model.vary(recording.audio, RATE, 1.0, **arguments, seed=1).tokens

    plain, led = tokens(), tokens(descriptions=["a reel"])
    away = tokens(descriptions=["a reel"], negative_descriptions="noise")
    assert not torch.equal(plain, led) and not torch.equal(led, away)


def test_long_recordings_are_edited_by_windows_around_what_is_free(model: MAGNeT, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window is as long as in training, and what is known is not decoded."""
    parts: list[KnownTokens] = []
    generate = model.lm.generate
    monkeypatch.setattr(model.lm, "generate",
                        lambda **arguments: parts.append(copied(arguments["known_tokens"])) or generate(**arguments))
    recording = noise(20 * RATE, batch=2)
    edit = model.inpaint(recording.audio, RATE, [[(3.0, 3.2)], [(3.0, 3.2), (15.0, 15.1)]], seed=1)
    check(model, recording, edit)
    assert [one.known.shape for one in parts] == [(1, 4, 50)] * 3 and all((~one.known).any() for one in parts)
    check_again(model, recording, edit)


def test_a_progress_bar_ends_at_its_end(model: MAGNeT) -> None:
    """With samples that have windows of their own."""
    seen: list[tuple[int, int]] = []
    model.set_custom_progress_callback(lambda done, total: seen.append((done, total)))
    recording = noise(3 * RATE, batch=2)
    model.inpaint(recording.audio, RATE, [[(0.0, 2.5)], [(2.0, 2.1)]], seed=1, progress=True)
    model.set_custom_progress_callback(None)
    steps = sum(FEW["decoding_steps"])
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)] and len(seen) % steps == 0 and len(seen) > steps


def test_a_mask_may_follow_the_recording_as_it_was_given(model: MAGNeT) -> None:
    """At its own sample rate, and each sample by itself."""
    recording = noise(1100, 1100, batch=2)
    recording.audio[0, :, :550] = 0.0

    def silent(clip: keep.Clip) -> torch.Tensor:
        assert clip.audio is not None and torch.equal(clip.audio, recording.audio) and clip.sample_rate == 1100
        return (clip.audio == 0).all(dim=1, keepdim=True).unflatten(-1, (50, 22)).all(dim=-1)

    edit = model.vary(recording.audio, 1100, keep=keep.Keep(silent, "silent()"), seed=1)
    assert edit.known[0, :, :25].all() and not edit.known[0, :, 25:].any() and not edit.known[1].any()
    check(model, recording, edit)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_recording_may_be_on_another_device_than_the_model(device: str) -> None:
    model = toy_magnet()
    model.lm.to("cuda")
    model.device = torch.device("cuda")
    recording = noise(RATE)
    edit = model.inpaint(recording.audio.to(device), RATE, [(0.2, 0.4)], seed=1)
    assert edit.audio.device.type == device and edit.tokens.device.type == "cuda"
    assert torch.equal(edit.audio[..., :160].cpu(), recording.audio[..., :160])


def test_all_methods_take_the_same_arguments() -> None:
    shared = ("descriptions", "negative_descriptions", "seed", "progress")
    for method in (MAGNeT.inpaint, MAGNeT.extend, MAGNeT.vary, MAGNeT.loop):
        parameters = inspect.signature(method).parameters
        assert set(shared) <= set(parameters) and list(parameters)[1:3] == ["audio", "sample_rate"]
