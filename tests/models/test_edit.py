"""Spans and other arguments of edits: what is refused, and how."""
import typing as tp

import numpy as np
import pytest
import torch

from magnet_plugin import MAGNeT
from magnet_plugin.models.edit import read_spans, turned

from ..helpers.recordings import RATE, noise
from ..helpers.small_musicgens import build_musicgen
from ..helpers.toy_codec import ToyCodec
from ..helpers.toy_magnets import FEW, toy_magnet


@pytest.fixture
def model() -> MAGNeT:
    return toy_magnet()


SOUND = noise(RATE).audio
BAD: list[tuple[str, tp.Callable[[MAGNeT], tp.Any]]] = [
    ("spans=\\[\\] must be a list of \\(start, end\\)", lambda m: m.inpaint(SOUND, RATE, [])),
    *(("spans=.* must be a list of \\(start, end\\)", lambda m, spans=spans: m.inpaint(SOUND, RATE, spans)) for spans in (
        (0.1, 0.2), 0.1, [(0.1,)], [("a", "b")], [(0.1, 0.2, 0.3)], [[]], [(0.1, float("nan"))], None,
        [[(0.1, 0.2)], [(0.1, 0.2)]], [[(0.1, 0.2), 3]])),
    *(("must lie within the recording, which lasts 1.00 s, and end after its start",
       lambda m, span=span: m.inpaint(SOUND, RATE, [span])) for span in ((-0.1, 0.2), (0.2, 0.2), (0.3, 0.2), (0.5, 1.1))),
    *((f"before={before}.* and after={after}.* must be at least 0 s, and together above 0 and at most 86400 s",
       lambda m, before=before, after=after: m.extend(SOUND, RATE, before, after))
      for before, after in ((0, 0), (-1, 2), (2, -1), (0, 1e9))),
    ("before='1' must be a finite number", lambda m: m.extend(SOUND, RATE, "1")),
    ("after=nan must be a finite number", lambda m: m.extend(SOUND, RATE, after=float("nan"))),
    ("the recording has 2 frames; extend needs at least 3", lambda m: m.extend(SOUND[..., :20], RATE, 1.0)),
    ("give one of strength=, preset= and keep=", lambda m: m.vary(SOUND, RATE)),
    ("give one of strength=, preset= and keep=", lambda m: m.vary(SOUND, RATE, 0.5, preset="small")),
    ("preset='tiny' is unknown; choose one of small, medium", lambda m: m.vary(SOUND, RATE, preset="tiny")),
    ("strength='much' must be a finite number", lambda m: m.vary(SOUND, RATE, "much")),
    ("strength=1.5 must be from 0 to 1", lambda m: m.vary(SOUND, RATE, 1.5)),
    ("keep='beats' must be a mask", lambda m: m.vary(SOUND, RATE, keep="beats")),
    ("shape \\[49\\], which does not fit", lambda m: m.vary(SOUND, RATE, keep=torch.ones(49, dtype=torch.bool))),
    ("give Bool \\[B, K, T\\]", lambda m: m.vary(SOUND, RATE, keep=torch.ones(50))),
    *((f"seam={seam}.* must be above 0 and at most half of the recording", lambda m, seam=seam: m.loop(SOUND, RATE, seam))
      for seam in (0, -1, 0.6)),
    ("seam='long' must be a finite number", lambda m: m.loop(SOUND, RATE, "long")),
    ("audio has values that are infinite", lambda m: m.loop(SOUND / 0, RATE)),
    ("2 descriptions for 1 samples", lambda m: m.loop(SOUND, RATE, 0.1, ["a", "b"])),
    ("2 seeds for 1 samples", lambda m: m.vary(SOUND, RATE, 0.5, seed=[1, 2])),
]


@pytest.mark.parametrize("words, call", BAD)
def test_invalid_arguments_are_refused_by_name(model: MAGNeT, words: str, call: tp.Callable[[MAGNeT], tp.Any]) -> None:
    with pytest.raises(ValueError, match=words):
        call(model)


def test_a_prompt_model_is_refused_in_one_clear_line(model: MAGNeT) -> None:
    model.set_generation_params(**FEW, prompt_model=build_musicgen(card=ToyCodec.CARD), prompt_duration=0.2)
    line = "^prompt_model generates .* no part in editing; set prompt_model=None in [^\n]*$"
    for call in (lambda: model.inpaint(SOUND, RATE, [(0.1, 0.2)]), lambda: model.extend(SOUND, RATE, 0.5),
                 lambda: model.vary(SOUND, RATE, 0.5), lambda: model.loop(SOUND, RATE, 0.5)):
        with pytest.raises(ValueError, match=line):
            call()


def test_a_codec_whose_frames_are_not_whole_numbers_of_samples_is_refused() -> None:
    model = toy_magnet()
    model.compression_model = ToyCodec(hop=16, frame_rate=49.9)
    with pytest.raises(ValueError, match="a frame of this codec has 15.99.* samples; editing"):
        model.vary(SOUND, RATE, 0.5)


@pytest.mark.parametrize("spans, batch, expected", [
    ([(0.1, 0.2)], 2, [[(0.1, 0.2)]] * 2), ([[0.1, 0.2], [0.4, 1.0]], 2, [[(0.1, 0.2), (0.4, 1.0)]] * 2),
    ([[(0.1, 0.2)], []], 2, [[(0.1, 0.2)], []]), ([[(0.1, 0.2), (0.3, 0.4)], [(0.5, 0.6)]], 2,
                                                  [[(0.1, 0.2), (0.3, 0.4)], [(0.5, 0.6)]]),
    (np.array([[0.25, 0.5]]), 1, [[(0.25, 0.5)]]), (iter([(0, 1)]), 1, [[(0, 1)]])])
def test_spans_are_for_all_samples_or_for_each(spans: tp.Any, batch: int, expected: tp.Any) -> None:
    assert read_spans(spans, batch, 1.0) == expected


@pytest.mark.parametrize("span, by, expected", [
    ((1.0, 2.0), 1.0, [(2.0, 3.0)]), ((1.0, 2.0), 3.0, [(0.0, 1.0)]), ((1.0, 2.0), 2.5, [(3.5, 4.0), (0.0, 0.5)]),
    ((0.0, 4.0), 2.0, [(2.0, 4.0), (0.0, 2.0)])])
def test_a_span_that_is_turned_over_the_end_goes_on_at_the_start(span: tuple[float, float], by: float,
                                                                 expected: list[tuple[float, float]]) -> None:
    assert turned(*span, by, 4.0) == expected
