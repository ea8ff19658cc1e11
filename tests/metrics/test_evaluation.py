"""The evaluation of a model of tones that follows its captions, and of one that does not."""
import json
from pathlib import Path

import pytest
import torch

from magnet_plugin.metrics.evaluation import Evaluation
from magnet_plugin.metrics.judgement import Judgement

from ..helpers.tones import RoundingCodec, ToneModel, ToneSet

METRICS = ("instruments", "frechet", "kernel")


@pytest.fixture(scope="module")
def folders(tone_set: ToneSet) -> tuple[Path, Path]:
    return tone_set(45, 0), tone_set(30, 1)


@pytest.fixture(scope="module")
def evaluation(folders: tuple[Path, Path]) -> Evaluation:
    return Evaluation(RoundingCodec(), folders, 30, METRICS)


def test_a_model_that_follows_its_captions_scores_better_outside_of_the_intervals(evaluation: Evaluation) -> None:
    good, bad = ToneModel(), ToneModel(follows_text=False)
    found = {"good": evaluation.evaluate(good, range(2)), "bad": evaluation.evaluate(bad, range(2))}
    scores = {name: one.scores() for name, one in found.items()}
    for name in scores["good"]:
        for value, low, high in (scores["good"][name], scores["bad"][name]):
            assert low <= value <= high, name
    assert scores["good"]["instruments"][1] > scores["bad"]["instruments"][2]
    for judgement in found.values():
        assert Judgement.read(json.loads(json.dumps(judgement.plain()))).scores() == judgement.scores()
    better = found["good"].minus(found["bad"])
    assert set(better) == set(scores["good"]) and better["instruments"][1] > 0
    assert all(value == [0, 0, 0] for value in found["good"].minus(found["good"]).values())
    with pytest.raises(ValueError, match=r"\[2, 30\] seeds and clips cannot be compared with \[1, 30\]"):
        found["good"].minus(evaluation.judge([evaluation.audio]))
    assert len({*good.seeds}) == len(good.seeds) == 8, "no two batches share a seed"


def test_the_real_clips_are_the_bound(evaluation: Evaluation) -> None:
    bounds = evaluation.bounds()
    assert set(bounds["held-out clips"]) == {"instruments"} and bounds["held-out clips"]["instruments"][0] > 0.9
    assert set(bounds["training clips"]) == {"frechet", "kernel_codec", "kernel_timbre"}
    noise = evaluation.judge([[0.1 * torch.randn_like(wav) for wav in evaluation.audio]]).scores()
    for name in bounds["training clips"]:
        assert bounds["training clips"][name][2] < noise[name][1], name
    assert set(bounds["through the codec"]) == set(noise)


def test_only_what_is_asked_for_is_computed(folders: tuple[Path, Path]) -> None:
    one = Evaluation(RoundingCodec(), folders, 6, ["frechet"])
    assert one.classifier is None and set(one.judge([one.audio]).scores()) == {"frechet"}


def test_wrong_arguments_are_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="choose from instruments, frechet, kernel, melody"):
        Evaluation(RoundingCodec(), folders, 6, ["fad"])
    with pytest.raises(ValueError, match="at least 3"):
        Evaluation(RoundingCodec(), folders, 2, ["frechet"])
