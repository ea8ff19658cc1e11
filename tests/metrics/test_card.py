"""Figures from a fake history, and the card made of them."""
import json
from pathlib import Path

import pytest

from magnet_plugin.metrics.card import plain, write_card
from magnet_plugin.metrics.history import Run, loss_figures, read_json, training_figures

HISTORY = [
    {"train": {"ce": 6.0, "duration": 100.0},
     "valid": {"ce": 5.5, "ce_q1": 5.0, "ce_q2": 6.0, "ppl": 9.0, "duration": 3.0}},
    {"train": {"ce": 5.0, "duration": 110.0},
     "valid": {"ce": 4.5, "ce_q1": 4.0, "ce_q2": 5.0, "ppl": 8.0, "duration": 4.0}},
    {"train": {"ce": 4.0, "duration": 120.0},
     "valid": {"ce": 4.8, "ce_q1": 4.2, "ce_q2": 5.4, "ppl": 8.5, "duration": 5.0}},
]


def run(name: str, epochs: int = 3, updates: int = 10, continue_from: str | None = None) -> Run:
    return Run(name, ["solver=magnet"], HISTORY[:epochs], updates, 16, "cpu", 2, continue_from)


def test_a_chain_adds_up_the_oldest_first() -> None:
    chain = [run("c", 3, 10, "b"), run("a", 1, 500), run("b", 2, 20, "a")]
    figures = training_figures(chain)
    assert [each["signature"] for each in figures["runs"]] == ["a", "b", "c"]
    assert [each["steps"] for each in figures["runs"]] == [500, 40, 30] and figures["steps"] == 570
    assert figures["training_seconds"] == 100 + 210 + 330 and figures["validation_seconds"] == 3 + 7 + 12
    assert figures["runs"][2]["batch_size"] == 16 and figures["runs"][2]["epochs"] == 3


def test_a_chain_with_gaps_or_strangers_is_refused() -> None:
    with pytest.raises(ValueError, match="c continued b.*--after b"):
        training_figures([run("c", continue_from="b")])
    with pytest.raises(ValueError, match="b continued a.*--after a"):
        training_figures([run("c", continue_from="b"), run("b", continue_from="a")])
    with pytest.raises(ValueError, match="leave --after x out"):
        training_figures([run("c"), run("x")])
    with pytest.raises(ValueError, match="twice"):
        training_figures([run("c", continue_from="b"), run("b"), run("b")])


def test_losses_of_the_best_and_of_the_last_epoch() -> None:
    figures = loss_figures(HISTORY)
    assert figures["epochs"] == 3 and figures["best_epoch"] == 2
    assert figures["best"] == {"ce": 4.5, "ce_q1": 4.0, "ce_q2": 5.0}
    assert figures["last"] == {"ce": 4.8, "ce_q1": 4.2, "ce_q2": 5.4}
    with pytest.raises(ValueError, match="validation ce"):
        loss_figures([{"train": {"ce": 1.0}}])


def test_the_card_says_what_its_figures_say(tmp_path: Path) -> None:
    card = {"name": "tiny", "about": ["What it is.", "What it is not."], "licence": ["Free."],
            "heldout": {"clips": 96, "instrument_accuracy_generated": 0.87654, "generation_seconds": 1234.5},
            "validation": loss_figures(HISTORY), "training": training_figures([run("b", 2, 20, "a"), run("a", 1, 500)]),
            "made_with": {"commit": None, "uncommitted_changes": False}, "files": {"state_dict.bin": 7_654_321}}
    write_card(tmp_path, card)
    assert json.loads((tmp_path / "card.json").read_text()) == card
    text = (tmp_path / "README.md").read_text()
    for line in ("# tiny", "What it is not.", "| instrument recognised: generated from the captions | 0.8765 |",
                 "| seconds that generating took | 1234 |", "| best, ce q1 | 4 |", "| last, ce | 4.8 |",
                 "| steps | 540 |", "| runs 1, signature | a |", "| runs 2, arguments | `solver=magnet` |",
                 "| commit | unknown |", "| uncommitted changes | no |", "| state_dict.bin | 7654321 |", "Free."):
        assert line in text.splitlines(), line


def test_nan_and_damage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_card(tmp_path, {"name": "x", "about": [], "licence": [], "heldout": {"loss": float("nan")}})
    assert not (tmp_path / "card.json").exists()
    (tmp_path / "history.json").write_text("[{")
    with pytest.raises(ValueError, match="history.json cannot be read"):
        read_json(tmp_path / "history.json")
    with pytest.raises(ValueError, match="Dora run"):
        read_json(tmp_path / "nothing.json")


@pytest.mark.parametrize("value, expected", [(0.00123456, "0.001235"), (96, "96"), (7_654_321, "7654321"),
                                             (True, "yes"), (12345.6, "12346"), ("a|b", "a\\|b"), ([], "none"),
                                             (None, "unknown")])
def test_cells(value: object, expected: str) -> None:
    assert plain(value) == expected
