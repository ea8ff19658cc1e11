"""The texts of a generation; `test_wishes` covers tempo and key."""
import typing as tp

import pytest
from hypothesis import strategies as st

import magnet_plugin
from tests.helpers.drawn import drawn

magnet_plugin.register()
from magnet_plugin.models.texts import Texts  # noqa: E402

TIMED = [(10.0, "with drums"), (4.0, "with a flute")]


def read_by_model(conditions: tp.Sequence[tp.Any]) -> list[tp.Optional[str]]:
    return [one.text["description"] for one in conditions]


def test_a_window_reads_the_last_text_that_has_set_in_by_its_middle() -> None:
    texts = Texts.read(["a reel", None], timed=TIMED)
    flute, drums = ["a reel, with a flute", "with a flute"], ["a reel, with drums", "with drums"]
    for middle, expected in ((0.0, ["a reel", None]), (3.99, ["a reel", None]), (4.0, flute), (9.9, flute), (11.0, drums)):
        assert read_by_model(texts.conditions(middle)) == expected


@drawn(60, 1000, starts=st.lists(st.integers(0, 20), max_size=6), middle=st.integers(0, 25))
def test_of_texts_with_one_start_the_last_one_counts(starts: list[int], middle: int) -> None:
    timed = [(float(start), f"text {number}") for number, start in enumerate(starts)]
    current = None
    for second in range(middle + 1):
        current = next((text for start, text in reversed(timed) if start == second), current)
    expected = "a reel" if current is None else f"a reel, {current}"
    assert read_by_model(Texts.read(["a reel"], timed=timed).conditions(middle)) == [expected]


def test_without_any_text_there_is_nothing_to_read() -> None:
    assert Texts.read(None, 3).conditions() == [] and Texts.read(["", None]).conditions() == []
    assert Texts.read(None, 2, timed=TIMED).conditions() == []
    assert read_by_model(Texts.read(None, 2, timed=TIMED).conditions(5)) == ["with a flute"] * 2


def test_negative_texts_are_one_for_all_or_one_per_sample() -> None:
    assert Texts.read(["a", "b"]).negative_conditions() == []
    assert read_by_model(Texts.read(["a", "b"], negative="noise").negative_conditions()) == ["noise", "noise"]
    assert read_by_model(Texts.read(["a", "b"], negative=[None, "noise"]).negative_conditions()) == [None, "noise"]
    assert Texts.read(["a"], negative=[]).negative == ()
    assert read_by_model(Texts.read([None], negative="noise").conditions()) == [None], "away from noise, to nothing special"


def test_samples_have_their_own_part_of_the_texts() -> None:
    texts = Texts.read(["a", "b", None], negative=["x", None, "z"], timed=TIMED)
    part = texts.of([2, 0])
    assert (part.descriptions, part.negative, part.timed) == ((None, "a"), ("z", "x"), texts.timed)
    assert Texts.read(["a", "b"]).of([1]) == Texts(("b",))


BAD: list[tuple[dict[str, tp.Any], str]] = [
    ({"descriptions": "a reel"}, "must be a list of texts, not one text; pass \\[text\\]"),
    ({"descriptions": []}, "descriptions is empty"), ({"descriptions": None}, "descriptions is empty"),
    ({"descriptions": ["a", "b"], "batch": 1}, "2 descriptions for 1 samples"),
    ({"descriptions": ["a", 3]}, "descriptions: 3 is not a text"),
    ({"descriptions": ["a"], "negative": ["x", "y"]}, "2 negative_descriptions for 1 samples"),
    ({"descriptions": ["a"], "negative": [3]}, "negative_descriptions: 3 is not a text"),
    ({"descriptions": ["a"], "negative": 3}, "negative_descriptions=3 must be a text, or a list"),
    ({"descriptions": None, "batch": 1, "negative": "x"}, "negative_descriptions need descriptions"),
    *(({"descriptions": ["a"], "timed": timed}, "timed_descriptions: .* must be \\(start in seconds, text\\)") for timed in (
        [5], (5.0, "b"), [("b", 5.0)], [(5.0,)], [(-1.0, "b")], [(float("nan"), "b")], [(True, "b")], [("5", "b")], "text",
        5.0, [(5.0, None)])),
]


@pytest.mark.parametrize("arguments, words", BAD)
def test_invalid_texts_are_refused(arguments: dict[str, tp.Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Texts.read(**arguments)
