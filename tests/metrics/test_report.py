"""The report on a model of tones that follows its captions, and on one that does not."""
from pathlib import Path

import pytest

from magnet_plugin.metrics.report import evaluate_model, shuffled_accuracy

from ..helpers.tones import ToneModel, ToneSet


@pytest.fixture(scope="module")
def folders(tone_set: ToneSet) -> tuple[Path, Path]:
    return tone_set(45, 0), tone_set(30, 1)


def test_the_report_on_a_model_that_follows_its_captions(folders: tuple[Path, Path]) -> None:
    model = ToneModel()
    result = evaluate_model(model, *folders, clips=30, seed=3)
    assert result["clips"] == 30 and result["instruments"] == 3 and result["generated_audio_seconds"] == 30
    for name in ("real", "codec", "generated"):
        assert result[f"instrument_accuracy_{name}"] > 0.9, name
    assert abs(result["instrument_accuracy_shuffled"] - 1 / 3) < 0.1
    for name in ("train", "codec", "generated"):
        assert result[f"frechet_{name}"] < result["frechet_noise"], name
    assert all(type(value) in (int, float) for value in result.values())
    assert 0 < result["generation_seconds"] < result["seconds"]
    assert len(set(model.seeds)) == len(model.seeds) and min(model.seeds) == 3     # no two batches share a seed


def test_the_report_on_a_model_that_ignores_its_captions(folders: tuple[Path, Path]) -> None:
    result = evaluate_model(ToneModel(follows_text=False), *folders, clips=30, training_clips=30)
    assert result["instrument_accuracy_real"] > 0.9 and result["instrument_accuracy_generated"] < 0.65


def test_the_accuracy_with_shuffled_captions_is_that_of_chance() -> None:
    names = ["a"] * 50 + ["b"] * 50
    assert shuffled_accuracy(names, names, 0) == pytest.approx(0.5, abs=0.02)
    assert shuffled_accuracy(names, ["a"] * 100, 0) == 0.5
