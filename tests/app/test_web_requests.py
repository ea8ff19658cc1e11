"""What visitors of the page may ask for; whatever a browser sends gets a readable answer."""
import math
import typing as tp

import pytest

from magnet_plugin.app.web import requests
from magnet_plugin.app.web.limits import Limits
from magnet_plugin.app.web.requests import Decoding, Order

LIMITS = Limits(max_seconds=20, max_clips=6, max_text=40, max_steps=60)
DECODING = Decoding.read("draft", None)


def order(text: tp.Any = "a reel", negative: tp.Any = "", count: tp.Any = 1) -> Order:
    return Order.read(text, negative, count, 3, DECODING, LIMITS)


def test_each_line_is_a_text_and_has_its_candidates() -> None:
    assert order(" a reel \n\n an air ", count=2).texts == ["a reel", "a reel", "an air", "an air"]
    assert order("", count=3).texts == [None] * 3 and order(None).texts == [None]
    assert order(negative=" drums ").negative == "drums" and order(negative=" ").negative is None


@pytest.mark.parametrize("values, said", [
    ({"count": 7}, "number of clips is 7; give a whole number from 1 to 6"), ({"count": 1.5}, "is 1.5"),
    ({"count": None}, "is empty"), ({"count": "two"}, "is 'two'"), ({"count": math.nan}, "is nan"),
    ({"count": True}, "is True"),
    ({"text": "a\n" * 4, "count": 2}, "4 texts with 2 clips each are 8 clips; the limit is 6"),
    ({"text": "a" * 41}, "a text has 41 characters; the limit is 40"), ({"negative": "a" * 41}, "41 characters"),
    ({"text": "", "negative": "drums"}, "needs a text to lead to")])
def test_invalid_orders_are_refused(values: dict[str, tp.Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        order(**values)


def test_the_seed_is_the_one_in_the_field_if_it_is_locked() -> None:
    assert requests.read_seed(7.0, True) == 7
    assert len({requests.read_seed(7, False) for _ in range(4)}) > 1
    for wrong in (None, -1, 0.5, "x", 2.0 ** 64):
        with pytest.raises(ValueError, match="the seed"):
            requests.read_seed(wrong, True)


@pytest.mark.parametrize("value, said", [
    (0, "is 0 s"), (21, "at most 20 s"), (math.inf, "is inf"), (None, "is empty"), ("5", "'5'")])
def test_invalid_lengths_are_refused(value: tp.Any, said: str) -> None:
    assert requests.read_duration(20, LIMITS) == 20.0
    with pytest.raises(ValueError, match=said):
        requests.read_duration(value, LIMITS)


@pytest.mark.parametrize("preset, loaded, changes, said", [
    ("none", None, {}, "no preset 'none'"), (["draft"], None, {}, "no preset"),
    ("file", None, {}, "no settings have been loaded"),
    ("draft", None, {"temperature": -1.0}, "temperature=-1"), ("draft", None, {"top_p": 2.0}, "top_p=2"),
    ("draft", None, {"max_cfg_coef": "x"}, "max_cfg_coef")])
def test_invalid_settings_are_refused(preset: tp.Any, loaded: tp.Any, changes: dict[str, tp.Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Decoding.read(preset, loaded, **changes)


def test_settings_of_a_file_are_used_without_those_that_load_models() -> None:
    settings = {"temp": 2.0, "decoding_steps": [5, 2, 2, 2], "duration": 9.0, "rescorer": "/etc/passwd",
                "rescorer_weight": 0.5, "prompt_model": "//sig/x", "prompt_duration": 1.0, "engine": "plain",
                "model": "/somewhere", "device": "cuda"}
    loaded = requests.read_loaded({"settings": settings}, LIMITS)
    assert loaded == {"temperature": 2.0, "decoding_steps": [5, 2, 2, 2], "duration": 9.0}
    decoding = Decoding.read("file", loaded, temperature=None, top_p=0.5)
    assert decoding.arguments(None, duration=3.0) == {**loaded, "top_p": 0.5, "duration": 3.0}
    with pytest.raises(ValueError, match="61 decoding steps; the limit is 60"):
        requests.read_loaded({"settings": {"decoding_steps": [31, 10, 10, 10]}}, LIMITS)
    with pytest.raises(ValueError, match="seeed"):
        requests.read_loaded({"settings": {"seeed": 1}}, LIMITS)
