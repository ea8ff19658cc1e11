"""Exports with their model card."""
from pathlib import Path

import pytest

from magnet_plugin.app import model_card
from magnet_plugin.app.release import FILES, export_release
from magnet_plugin.models.inspection import licence_of

from ..helpers.toy_grids import epoch
from ..helpers.toy_runs import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, release_folder: Path) -> Path:
    return write_run(tmp_path_factory.mktemp("runs"), release_folder)


def test_the_card_states_what_the_run_holds_and_no_path(run: Path, tmp_path: Path) -> None:
    release = export_release(str(run), tmp_path / "mine")
    assert [path.name for path in release.files] == list(FILES) and release.new_card
    card = (tmp_path / "mine" / "README.md").read_text()
    for line in ("# mine", "A MAGNeT in AudioCraft's format",
                 "| epochs | 3 of 3 |", "| updates | 15 |", "| measured on | A Chip |", "| train | 3 | 1.5 |",
                 "| valid | 1 | 0.5 |", "| 1 | 5.5000 | 5.0000 |", "| 2 | 3.5000 | 3.0000 |",
                 "The weights are those of epoch 2, which has the lowest validation loss.", "| codebooks | 4 |",
                 "| conditioners | description (words) |", "| segment (s) | 2 |", "| clips in a batch | 4 |"):
        assert line in card, line
    assert "`solver=magnet/debug datasource.train=train label=mine optim.epochs=3`" in card
    assert str(run.parents[1]) not in card and "evaluate |" not in card
    assert not model_card.has_licence(card) and licence_of(tmp_path / "mine") is None


def test_a_licence_takes_the_place_of_the_placeholder_and_an_edited_card_is_kept(run: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert export_release(str(run), tmp_path).new_card
    card.write_text(card.read_text().replace("# ", "# Edited: ", 1))
    assert not export_release(str(run), tmp_path, licence="cc-by-4.0").new_card
    text = card.read_text()
    assert "# Edited: " in text and model_card.has_licence(text) and licence_of(tmp_path) == "cc-by-4.0"
    assert model_card.PLACEHOLDER not in text


def test_a_release_without_a_run_has_no_section_about_training(release_folder: Path, tmp_path: Path) -> None:
    from magnet_plugin.models import checkpoints
    export_release(str(release_folder / checkpoints.CODEC_FILE), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "## Training" not in card and "## Loss" not in card and "## Use" not in card and "## Files" in card
    assert "A codec in AudioCraft's format" in card and "state_dict.safetensors" in card


def test_a_long_history_is_thinned_but_keeps_the_best_and_the_last_epoch() -> None:
    from magnet_plugin.sweeps.records import Job
    history = [epoch(9 - number / 10) for number in range(40)]
    history[18] = epoch(1.0)
    lines = model_card.losses(Job("0a1b2c3d", history=history))
    rows = [int(line.split("|")[1]) for line in lines if line.startswith("| ") and "epoch" not in line and "--" not in line]
    assert len(rows) <= 14 and {1, 19, 40} <= set(rows) and "epoch 19," in lines[-1]
