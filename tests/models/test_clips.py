"""Clips of any length: windows that overlap on known tokens, prompts, texts that set in later, and finished audio."""
import logging
import math
import typing as tp

import pytest
import torch
from hypothesis import strategies as st

import magnet_plugin
from magnet_plugin import MAGNeT
from magnet_plugin.decoding.random_source import place_seeds, sample_seeds
from magnet_plugin.models import codec_chunks
from magnet_plugin.models.settings import settings

from ..helpers.drawn import drawn
from ..helpers.small_musicgens import build_musicgen
from ..helpers.toy_codec import ToyCodec
from ..helpers.toy_magnets import FEW, WAYS, toy_magnet

HOP, RATE, FRAMES, WINDOW, STRIDE = 16, 800, 50, 50, 30
TEXTS = ["a fast reel", "a slow waltz on the flute"]
Call = dict[str, tp.Any]


@pytest.fixture(scope="module")
def models() -> dict[str, MAGNeT]:
    return {way: toy_magnet(way) for way in WAYS}


def sound(samples: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(0)) * 0.3


def watch(model: MAGNeT, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Note the arguments of each window, and fill in what is free with the number of the window."""
    calls: list[Call] = []

    def generate(**arguments: tp.Any) -> torch.Tensor:
        known, prompt = arguments.get("known_tokens"), arguments.get("prompt")
        shape = (arguments["num_samples"], ToyCodec.K, arguments.get("max_gen_len") or known.tokens.shape[-1])
        free = torch.ones(shape, dtype=torch.bool)
        tokens = torch.full(shape, len(calls))
        if known is not None:
            free, tokens = ~known.known.clone(), torch.where(known.known, known.tokens, tokens)
        if prompt is not None:
            tokens[..., :prompt.shape[-1]], free[..., :prompt.shape[-1]] = prompt, False
        calls.append({**arguments, "free": free[0, 0], "length": shape[-1]})
        return tokens

    monkeypatch.setattr(model.lm, "generate", generate)
    return calls


@drawn(12, 200, way=st.sampled_from(list(WAYS)), duration=st.integers(1, 140), given=st.integers(0, 139),
       order=st.sampled_from(["forward", "alternate"]), batch=st.integers(1, 2), seed=st.integers(0, 2 ** 40))
def test_prompts_of_any_length_are_kept_and_the_rest_is_filled_in(
        models: dict[str, MAGNeT], way: str, duration: int, given: int, order: str, batch: int, seed: int) -> None:
    given = given % duration
    model = models[way].with_generation_params(**FEW, **WAYS[way][1], duration=duration / FRAMES, window_order=order)
    pieces: list[tuple[torch.Tensor, float]] = []
    arguments: dict[str, tp.Any] = {"return_tokens": True, "on_window": lambda *piece: pieces.append(piece)}
    state = torch.get_rng_state()
    if given:
        prompt = sound(given * HOP - seed % HOP, batch)
        audio, tokens = model.generate_continuation(prompt, RATE, TEXTS[:batch], seed=seed, **arguments)
        assert torch.equal(tokens[..., :given], model.compression_model.encode(prompt)[0])
    else:
        audio, tokens = model.generate(TEXTS[:batch], seed=seed, **arguments)
    assert torch.equal(torch.get_rng_state(), state), "the global random state was used"
    assert tokens.shape == (batch, ToyCodec.K, duration) and tokens.min() >= 0 and tokens.max() < ToyCodec.CARD
    assert audio.shape == (batch, 1, duration * HOP)
    assert (audio - model.compression_model.decode(tokens)).abs().max() < 1e-6
    assert torch.equal(torch.cat([piece for piece, _ in pieces], dim=-1), audio), "pieces join to the clip"
    starts = [sum(piece.shape[-1] for piece, _ in pieces[:n]) / RATE for n in range(len(pieces))]
    assert [start for _, start in pieces] == pytest.approx(starts)
    for row, own in enumerate(sample_seeds(seed, batch) or ()):
        del arguments["on_window"], pieces[:]
        alone = (model.generate_continuation(prompt[row:row + 1], RATE, TEXTS[row:row + 1], seed=[own], **arguments) if given
                 else model.generate(TEXTS[row:row + 1], seed=[own], **arguments))
        assert torch.equal(alone[1], tokens[row:row + 1]) and torch.equal(alone[0], audio[row:row + 1])
        arguments["on_window"] = None


@pytest.mark.parametrize("order, windows", [("forward", [(0, 0), (30, 50), (60, 80), (80, 110)]),
                                            ("alternate", [(0, 0), (60, 60), (30, 50), (80, 110)])])
def test_windows_overlap_on_known_tokens_and_have_their_own_seeds_and_texts(
        order: str, windows: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
        ) -> None:
    """`windows` are the first frame and the first free frame of each."""
    model = toy_magnet(duration=2.6, window_order=order)
    calls = watch(model, monkeypatch)
    with caplog.at_level(logging.INFO, logger="magnet_plugin.models.clips"):
        model.generate(["a reel"], seed=[7], timed_descriptions=[(1.0, "with drums"), (1.8, "with a flute")],
                       negative_descriptions="noise")
    assert [record.message for record in caplog.records] == [
        f"2.6 s are decoded in 4 windows of 1 s that overlap by 0.4 s (extend_stride=0.6, window_order={order})"]
    assert [call["length"] for call in calls] == [WINDOW] * 4
    assert [int(call["free"].nonzero()[0]) for call in calls] == [first - start for start, first in windows]
    assert [call["seed"] for call in calls] == [place_seeds([7], start) for start, _ in windows]
    texts = {0: "a reel", 30: "a reel, with drums", 60: "a reel, with drums", 80: "a reel, with a flute"}   # by the middle
    assert [call["conditions"][0].text["description"] for call in calls] == [texts[start] for start, _ in windows]
    assert all(call["negative"][0].text["description"] == "noise" for call in calls)


def test_a_clip_of_one_window_is_not_cut(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    model = toy_magnet(duration=1.0)
    calls, pieces = watch(model, monkeypatch), list[tp.Any]()
    with caplog.at_level(logging.INFO, logger="magnet_plugin.models.clips"):
        model.generate(["a reel"], seed=7, timed_descriptions=[(0.5, "with drums")],
                       on_window=lambda audio, start: pieces.append((audio.shape[-1], start)))
    (call,) = calls
    assert not caplog.records and pieces == [(RATE, 0.0)]
    assert call["length"] == WINDOW and call["seed"] == [7] and call["free"].all()
    assert call["conditions"][0].text["description"] == "a reel, with drums" and not call["negative"]


def test_texts_that_set_in_later_leave_earlier_windows_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_magnet(duration=2.6)
    calls = watch(model, monkeypatch)
    model.generate_continuation(sound(160), RATE, timed_descriptions=[(1.5, "drums")], seed=1)
    assert [[one.text["description"] for one in call["conditions"]] for call in calls] == [[], [], ["drums"], ["drums"]]


@pytest.mark.parametrize("given", [0, 10, 45, 49])
def test_a_hybrid_model_goes_on_autoregressively_after_a_prompt_of_any_length(given: int, monkeypatch: pytest.MonkeyPatch
                                                                             ) -> None:
    """A window that begins later than the clip begins with the prompt's end."""
    model = toy_magnet("hybrid", duration=2.6, prompt_duration=0.1)
    calls = watch(model, monkeypatch)
    if given:
        model.generate_continuation(sound(given * HOP), RATE, seed=1)
    else:
        model.generate(TEXTS, seed=1)
    first, *others = calls
    kept = given - max(given - (WINDOW - STRIDE), 0)
    assert (0 if first["prompt"] is None else first["prompt"].shape[-1]) == kept
    assert first["prompt_frames"] == 5 and first["max_gen_len"] == WINDOW
    assert all("prompt" not in call and "prompt_frames" not in call for call in others)
    if given:
        expected = model.compression_model.encode(sound(given * HOP))[0][..., given - kept:]
        assert torch.equal(first["prompt"], expected)


@pytest.mark.parametrize("given", [0, 10, 45])
def test_a_prompt_model_generates_up_to_its_duration_after_a_prompt_of_any_length(given: int, monkeypatch: pytest.MonkeyPatch
                                                                                 ) -> None:
    writer = build_musicgen(card=ToyCodec.CARD)
    model = toy_magnet(duration=2.6, prompt_model=writer, prompt_duration=0.96)
    calls = watch(model, monkeypatch)
    if given:
        tokens = model.generate_continuation(sound(given * HOP), RATE, seed=1, return_tokens=True)[1]
    else:
        tokens = model.generate(TEXTS[:1], seed=1, return_tokens=True)[1]
    start = max(given - (WINDOW - STRIDE), 0)
    assert calls[0]["prompt"].shape[-1] == 48 - start, "up to 0.96 s of the clip"
    assert (tokens[0, 0] == 0).nonzero().flatten().tolist()[-1] == start + WINDOW - 1
    if given:
        assert torch.equal(tokens[..., :given], model.compression_model.encode(sound(given * HOP))[0])
    assert not (tokens[..., given:48] == 0).all(), "the prompt model's tokens"
    with pytest.raises(ValueError, match="the prompt lasts 0.96 s, but prompt_model only .* up to prompt_duration=0.96 s"):
        model.generate_continuation(sound(48 * HOP), RATE)


def test_prompts_longer_than_a_window_are_continued_from_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_magnet(duration=2.6)
    calls = watch(model, monkeypatch)
    prompt = sound(120 * HOP)
    tokens = model.generate_continuation(prompt, RATE, seed=1, return_tokens=True)[1]
    (call,) = calls
    assert torch.equal(tokens[..., :120], model.compression_model.encode(prompt)[0]) and (tokens[..., 120:] == 0).all()
    assert call["length"] == WINDOW and call["free"].nonzero().flatten().tolist() == list(range(40, 50))


def test_memory_and_work_do_not_grow_with_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the codec nor the language model is ever called with more than a piece."""
    model = toy_magnet(duration=300.0)
    calls, codec = watch(model, monkeypatch), tp.cast(ToyCodec, model.compression_model)
    prompt = sound(100 * RATE)
    audio, tokens = model.generate_continuation(prompt, RATE, seed=1, return_tokens=True)
    assert torch.equal(tokens[..., :100 * FRAMES], codec.encode(prompt)[0])
    longest = (codec_chunks.PIECE + 2 * codec_chunks.MARGIN) * FRAMES
    assert audio.shape[-1] == 300 * RATE and max(codec.lengths[:-1]) <= longest
    assert {call["length"] for call in calls} == {WINDOW}
    assert sum(int(call["free"].sum()) for call in calls) == 200 * FRAMES, "each free frame is decoded once"
    assert len(calls) == math.ceil(200 / 0.6)
    codec.lengths.clear()
    model.inpaint(prompt, RATE, [(5.0, 95.0)], seed=1)
    assert max(codec.lengths) <= longest and sum(codec.lengths) <= (100 + 92) * FRAMES + 8 * 4 * FRAMES


@pytest.mark.parametrize("order, late", [("forward", 1), ("alternate", 2)])
def test_five_minutes_of_the_bundled_model(order: str, late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bookkeeping of its tokens: a cheap function is in the place of the language model."""
    magnet_plugin.register()
    model = MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu")
    model.set_generation_params(duration=300.0, window_order=order)
    codec = model.compression_model
    frames, free, longest = round(300 * codec.frame_rate), list[int](), list[int]()

    def generate(known_tokens: tp.Any = None, max_gen_len: int = 0, num_samples: int = 1, seed: tp.Any = None,
                 **arguments: tp.Any) -> torch.Tensor:
        length = max_gen_len or known_tokens.tokens.shape[-1]
        drawn = torch.randint(0, 512, (num_samples, 4, length), generator=torch.Generator().manual_seed(seed[0]))
        known = torch.zeros_like(drawn, dtype=torch.bool) if known_tokens is None else known_tokens.known
        free.append(int((~known[0, 0]).sum()))
        longest.append(length)
        return torch.where(known, drawn if known_tokens is None else known_tokens.tokens, drawn)

    def decode(tokens: torch.Tensor, scale: None) -> torch.Tensor:
        longest.append(tokens.shape[-1])
        return tokens[:, :1].float().repeat_interleave(320, dim=-1)

    monkeypatch.setattr(model.lm, "generate", generate)
    monkeypatch.setattr(codec, "decode", decode)
    pieces: list[tuple[float, int]] = []
    audio, tokens = model.generate(["a fast reel"], return_tokens=True, seed=1,
                                   on_window=lambda audio, start: pieces.append((start, len(free))))
    assert tokens.shape == (1, 4, frames) and audio.shape == (1, 1, 300 * 16000) and sum(free) == frames
    assert torch.equal(audio[0, 0, ::320].long(), tokens[0, 0]), "each frame is decoded once, in its place"
    assert max(longest) <= (codec_chunks.PIECE + 2 * codec_chunks.MARGIN) * codec.frame_rate
    window = round(model.max_duration * codec.frame_rate)
    assert len(free) == math.ceil((frames - window) / (0.6 * window)) + 1 and pieces == sorted(pieces)
    assert [after for _, after in pieces] == [*range(1, len(free), late), len(free)], "finished audio is not held back"


def test_progress_counts_the_steps_of_all_windows_and_of_the_prompt_model() -> None:
    model = toy_magnet(duration=2.6, prompt_model=build_musicgen(card=ToyCodec.CARD), prompt_duration=0.2)
    seen: list[tuple[int, int]] = []
    model.set_custom_progress_callback(lambda done, total: seen.append((done, total)))
    model.generate(["a reel"], progress=True, seed=1)
    total = 4 * sum(FEW["decoding_steps"]) + 10 + 3             # ten frames in the delay pattern
    assert seen == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize("stride, expected", [(0.6, "alternate"), (0.5, "forward")])
def test_clips_from_a_text_are_decoded_in_alternation_where_windows_leave_gaps(
        stride: float, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    model = toy_magnet(duration=2.6, extend_stride=stride)
    calls = watch(model, monkeypatch)

    def order(make: tp.Callable[[], tp.Any]) -> str:
        calls.clear(), caplog.clear()
        with caplog.at_level(logging.INFO, logger="magnet_plugin.models.clips"):
            make()
        return caplog.records[0].message.split("window_order=")[1].removesuffix(")")

    assert order(lambda: model.generate(["a reel"], seed=1)) == expected
    assert order(lambda: model.generate([None], timed_descriptions=[(0, "a reel")], seed=1)) == expected
    for goes_on in (lambda: model.generate_unconditional(1, seed=1),
                    lambda: model.generate_continuation(sound(160), RATE, ["a reel"], seed=1),
                    lambda: model.extend(sound(RATE), RATE, after=2.0, descriptions=["a reel"], seed=1)):
        assert order(goes_on) == "forward"
    mixed = " and ".join(sorted({expected, "forward"}))
    assert order(lambda: model.generate(["a reel", None], seed=[1, 2])) == mixed, "each sample by itself"


def test_windows_are_settings_that_are_recorded() -> None:
    model = toy_magnet(duration=2.6, extend_stride=0.9, window_order="alternate")
    assert settings(model)["extend_stride"] == 0.9 and settings(model)["window_order"] == "alternate"
    model.set_generation_params(**FEW)
    assert (model.extend_stride, model.window_order, model.duration) == (0.6, "auto", 1.0)


@pytest.mark.parametrize("params, words", [
    ({"extend_stride": 0.0}, "windows of 50 frames cannot overlap by 50; set extend_stride above 0"),
    ({"extend_stride": 1.5}, "cannot overlap by -25.*at most the length of a window"),
    ({"extend_stride": float("inf")}, "extend_stride=inf must be a finite number"),
    ({"extend_stride": 0.5, "window_order": "alternate"}, "raise extend_stride, or set window_order=forward"),
    ({"window_order": "random"}, "window_order='random' is unknown; choose one of auto, forward, alternate"),
    ({"duration": 1e6}, "duration=1000000.0 must be above 0 and at most 86400 s"),
    ({"duration": 3.0, "prompt_duration": 2.0, "prompt_model": "x"},
     "prompt_duration=2.0 s exceeds .*lower prompt_duration")])
def test_invalid_windows_are_refused(models: dict[str, MAGNeT], params: dict[str, tp.Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        models["lean"].set_generation_params(**FEW, **params)


def test_steps_are_reported_in_the_place_of_their_window() -> None:
    model = toy_magnet("plain").with_generation_params(**FEW, duration=2.0)
    assert model.window_frames < round(2.0 * FRAMES)
    found: list[tuple[tp.Any, torch.Tensor]] = []
    model.on_step = lambda step, masked: found.append((step, masked))
    _, tokens = model.generate(TEXTS, seed=3, return_tokens=True)
    firsts = [masked for step, masked in found if step.index == 0]
    assert all(masked.shape == (len(TEXTS), tokens.shape[-1]) for masked in firsts)
    counts = torch.stack(firsts).sum(dim=0)                 # How often the first step of a codebook masks each frame.
    assert (counts == ToyCodec.K).all()                     # Once per codebook: in the window that fills it in.
    model.on_step = None
    assert torch.equal(model.generate(TEXTS, seed=3, return_tokens=True)[1], tokens)
