"""judge() on a model of tones that obeys its text, and on one that does not."""
import typing as tp
from pathlib import Path

import pytest

from magnet_plugin.metrics.report import judge, shuffled_agreement

from .conftest import ToneModel

ToneSet = tp.Callable[[int, int], Path]


@pytest.fixture(scope="module")
def folders(tone_set: ToneSet) -> tuple[Path, Path]:
    return tone_set(45, 0), tone_set(30, 1)


def test_an_obedient_model_scores_and_its_shuffled_labels_do_not(folders: tuple[Path, Path]) -> None:
    model = ToneModel()
    result = judge(model, *folders, clips=30, seed=3)
    assert result["clips"] == 30 and result["instruments"] == 3 and result["generated_audio_seconds"] == 30
    for name in ("real", "codec", "generated"):
        assert result[f"instrument_accuracy_{name}"] > 0.9, name
    assert abs(result["instrument_accuracy_shuffled"] - 1 / 3) < 0.1
    assert result["frechet_train"] < result["frechet_noise"] and result["frechet_codec"] < result["frechet_noise"]
    assert result["frechet_generated"] < result["frechet_noise"]
    assert all(type(value) in (int, float) for value in result.values())
    assert 0 < result["generation_seconds"] < result["seconds"]
    assert len(set(model.seeds)) == len(model.seeds) and min(model.seeds) == 3     # no batch repeats another's draws


def test_a_deaf_model_scores_by_chance(folders: tuple[Path, Path]) -> None:
    result = judge(ToneModel(obedient=False), *folders, clips=30, training_clips=30)
    assert result["instrument_accuracy_real"] > 0.9 and result["instrument_accuracy_generated"] < 0.65


def test_shuffled_agreement_is_that_of_chance() -> None:
    heard = ["a"] * 50 + ["b"] * 50
    assert shuffled_agreement(heard, heard, 0) == pytest.approx(0.5, abs=0.02)
    assert shuffled_agreement(heard, ["a"] * 100, 0) == 0.5
