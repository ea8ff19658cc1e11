"""A job's history as one row of metrics."""
import math

import pytest

from magnet_plugin.sweeps import rows

from ..helpers.toy_grids import CONFIG, END, epoch


def test_best_losses_and_seconds_per_clip_are_derived_from_the_history() -> None:
    row = rows.flatten([epoch(5.0), epoch(3.0), epoch(math.nan), epoch(4.0, **END)], CONFIG)
    assert (row["valid.best_ce"], row["valid.best_epoch"], row["valid.ce"]) == (3.0, 2, 4.0)
    # ten clips in batches of eight are two batches: 2 * 0.4 * 10 s of work
    assert row["generate.seconds_per_clip"] == pytest.approx(2 * 0.4 * 10 / 10)
    longer = {**CONFIG, "generate": {"lm": {"gen_duration": 30}}}
    assert rows.flatten([END], longer)["generate.seconds_per_clip"] == pytest.approx(2.4)
    assert "generate.seconds_per_clip" not in rows.flatten([END], {}), "unknown without a config"
    early = [epoch(1.0, **END), epoch(2.0)]
    assert rows.flatten(early, CONFIG)["evaluate.fad"] == 4.5, "the latest epoch that has it"
