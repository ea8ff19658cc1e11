"""Training summaries from a fake history, and the cards that are written from them."""
import json
from pathlib import Path

import pytest

from magnet_plugin.models.checkpoints import BUNDLED
from tools.model_card import format_value, licence, render, write_card
from tools.run_history import TrainingRun, loss_summary, read_json, training_summary

HISTORY = [
    {"train": {"ce": 6.0, "duration": 100.0},
     "valid": {"ce": 5.5, "ce_q1": 5.0, "ce_q2": 6.0, "ppl": 9.0, "duration": 3.0}},
    {"train": {"ce": 5.0, "duration": 110.0},
     "valid": {"ce": 4.5, "ce_q1": 4.0, "ce_q2": 5.0, "ppl": 8.0, "duration": 4.0}},
    {"train": {"ce": 4.0, "duration": 120.0},
     "valid": {"ce": 4.8, "ce_q1": 4.2, "ce_q2": 5.4, "ppl": 8.5, "duration": 5.0}},
]


def run(name: str, epochs: int = 3, updates: int = 10, continue_from: str | None = None) -> TrainingRun:
    return TrainingRun(name, ["solver=magnet"], HISTORY[:epochs], updates, 16, "cpu", 2, continue_from)


def test_a_chain_of_runs_is_summed_oldest_first() -> None:
    chain = [run("c", 3, 10, "b"), run("a", 1, 500), run("b", 2, 20, "a")]
    summary = training_summary(chain)
    assert [each["signature"] for each in summary["runs"]] == ["a", "b", "c"]
    assert [each["steps"] for each in summary["runs"]] == [500, 40, 30] and summary["steps"] == 570
    assert summary["training_seconds"] == 100 + 210 + 330 and summary["validation_seconds"] == 3 + 7 + 12
    assert summary["runs"][2]["batch_size"] == 16 and summary["runs"][2]["epochs"] == 3


@pytest.mark.parametrize("runs, message", [
    ([run("c", continue_from="b")], "c continues b.*add --after b"),
    ([run("c", continue_from="b"), run("b", continue_from="a")], "b continues a.*add --after a"),
    ([run("c"), run("x")], "remove --after x"),
    ([run("c", continue_from="b"), run("b"), run("b")], "twice"),
])
def test_an_incomplete_or_unrelated_chain_is_rejected(runs: list[TrainingRun], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_summary(runs)


def test_losses_of_the_best_and_the_last_epoch() -> None:
    summary = loss_summary(HISTORY)
    assert summary["epochs"] == 3 and summary["best_epoch"] == 2
    assert summary["best"] == {"ce": 4.5, "ce_q1": 4.0, "ce_q2": 5.0}
    assert summary["last"] == {"ce": 4.8, "ce_q1": 4.2, "ce_q2": 5.4}
    with pytest.raises(ValueError, match="validation metric ce"):
        loss_summary([{"train": {"ce": 1.0}}])


def test_the_readme_has_every_value_of_the_card(tmp_path: Path) -> None:
    card = {"name": "tiny", "about": ["What it is."], "notes": ["A note."], "licence": ["Free."],
            "heldout": {"clips": 96, "instrument_accuracy_generated": 0.87654, "generation_seconds": 1234.5},
            "validation": loss_summary(HISTORY), "training": training_summary([run("b", 2, 20, "a"), run("a", 1, 500)]),
            "made_with": {"commit": None, "uncommitted_changes": False}, "files": {"state_dict.bin": 7_654_321}}
    write_card(tmp_path, card)
    assert json.loads((tmp_path / "card.json").read_text()) == card
    text = (tmp_path / "README.md").read_text()
    for line in ("# tiny", "What it is.", "A note.", "| instrument accuracy: clips generated from the captions | 0.8765 |",
                 "| generation time (s) | 1234 |", "| best, codebook 1 | 4 |", "| last, all codebooks | 4.8 |",
                 "| steps | 540 |", "| run 1, signature | a |", "| run 2, arguments | `solver=magnet` |",
                 "| commit | unknown |", "| uncommitted changes | no |", "| state_dict.bin | 7654321 |", "Free."):
        assert line in text.splitlines(), line


def test_nan_and_damaged_files_are_rejected(tmp_path: Path) -> None:
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
def test_values_are_formatted_for_table_cells(value: object, expected: str) -> None:
    assert format_value(value) == expected


@pytest.mark.parametrize("folder", [path.parent for path in sorted(BUNDLED.glob("*/card.json"))], ids=lambda path: path.name)
def test_bundled_cards_are_up_to_date(folder: Path) -> None:
    """The README is rendered from card.json, which has the files' sizes; `tools.zoo --rewrite-card` updates both."""
    card = read_json(folder / "card.json")
    assert (folder / "README.md").read_text(encoding="utf-8") == render(card)
    assert card["files"] == {path.name: path.stat().st_size for path in folder.glob("*.bin")}


def test_licences_name_the_soundfonts_that_were_heard() -> None:
    assert licence({"clips": 4})[1].startswith("The audio was rendered with the SoundFont TimGM6mb (GPL-2.0), which")
    text = licence({"soundfonts": ["timgm6mb", "fluidr3", "/my/own.sf2"]})[1]
    assert "SoundFonts TimGM6mb (GPL-2.0), FluidR3_GM (MIT), own (unknown), none of which is included here" in text
