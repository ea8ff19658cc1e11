"""Edits of the page: marked regions become the arguments and the mask of an edit."""
import typing as tp

import numpy as np
import pytest
import torch

from magnet_plugin import MAGNeT
from magnet_plugin.app.web import edits
from magnet_plugin.app.web.limits import Limits
from magnet_plugin.app.web.recordings import Recording

from ..helpers.toy_magnets import toy_magnet

LIMITS = Limits(max_seconds=4)
RECORDING = Recording("a.wav", np.float32(np.random.default_rng(0).normal(size=(1, 2000)) * 0.1), 1000)


@pytest.fixture(scope="module")
def model() -> MAGNeT:
    return toy_magnet()


def read(method: tp.Any = "inpaint", regions: tp.Any = "", **own: tp.Any) -> edits.Edit:
    return edits.read_edit(method, RECORDING, regions, LIMITS, **own)


def test_regions_are_read_as_the_page_writes_them() -> None:
    assert edits.read_regions("1.00-2.50, 0.5-0.75", 2.5) == [(0.5, 0.75), (1.0, 2.5)]
    assert edits.read_regions(" 1 to 2;", 2) == [(1.0, 2.0)]
    assert edits.read_regions("1-9", 2) == [(1.0, 2.0)] and edits.read_regions(None, 2) == []
    for wrong, said in (("1", "the region '1' cannot be read"), ("a-b", "cannot be read"), ("2-1", "must end after its"),
                        ("3-4", "lie within the recording, which lasts 2.00 s"), ("-1-2", "cannot be read")):
        with pytest.raises(ValueError, match=said):
            edits.read_regions(wrong, 2)


@pytest.mark.parametrize("method, regions, own, said", [
    ("inpaint", "", {}, "no region is marked"), ("paint", "", {}, "no method 'paint'"), (None, "", {}, "no method None"),
    ("extend", "", {"before": 0, "after": 0}, "nothing is added"),
    ("extend", "", {"before": -1, "after": 2}, "nothing is added"),
    ("extend", "", {"after": 3}, "would last 5.0 s; the limit is 4 s"), ("extend", "", {"after": None}, "After is empty"),
    ("extend", "0-1, 1.5-2", {"after": 1}, "one region at most; remove 1"), ("loop", "", {"seam": 1.5}, "the seam is 1.5 s"),
    ("loop", "0-0.5", {"seam": 0.5}, "at most half of the part that is looped, 0.25 s"), ("loop", "", {"seam": "x"}, "'x'"),
    ("vary", "", {"variation": "huge"}, "no variation 'huge'"), ("vary", "", {"strength": 2}, "strength=2"),
    ("vary", "", {"strength": None}, "strength is empty")])
def test_invalid_edits_are_refused(method: tp.Any, regions: str, own: dict[str, tp.Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(method, regions, **own)
    with pytest.raises(ValueError, match="nothing to edit yet"):
        edits.read_edit(method, None, regions, LIMITS, **own)


@pytest.mark.parametrize("method, regions, own", [
    ("inpaint", "0.5-1", {}), ("inpaint", "0.1-0.2, 1-1.5", {}), ("vary", "", {"strength": 0.4}), ("vary", "0.5-1.5", {}),
    ("vary", "", {"variation": "small"}), ("extend", "", {"before": 0.5, "after": 1}), ("extend", "0.5-1.5", {"after": 0.5}),
    ("loop", "", {"seam": 0.5}), ("loop", "0.4-1.6", {"seam": 0.4})])
def test_the_mask_that_is_shown_is_the_one_that_is_used(model: MAGNeT, method: str, regions: str, own: dict[str, tp.Any]
                                                        ) -> None:
    edit = read(method, regions, **own)
    shown, made = edit.mask(model.compression_model), edit.call(model, seed=1)
    used = made.known[0]
    if method == "loop":                                # The model turns the recording by half its length.
        used = used.roll(used.shape[-1] // 2, dims=-1)
    assert shown.shape == used.shape
    differing = (shown != used).any(dim=0)
    assert int(differing.sum()) <= (4 if method in ("extend", "loop") else 0)       # What is faded at its borders.
    if method == "vary" and regions:
        outside = torch.ones(used.shape[-1], dtype=torch.bool)
        outside[25:75] = False
        assert used[:, outside].all() and not used[:, ~outside].all()
