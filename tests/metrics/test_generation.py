"""Metrics of generated clips, in batches and over ranks."""
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from magnet_plugin.data.clips import Clip, load_audio, read_clips
from magnet_plugin.metrics.frechet import Gaussian, frechet_distance, latents
from magnet_plugin.metrics.generation import GenerationMetrics
from magnet_plugin.metrics.instruments import InstrumentClassifier

from ..helpers.tones import RATE, RoundingCodec, ToneModel, ToneSet, write_tones


@pytest.fixture(scope="module")
def clips(tone_set: ToneSet) -> list[Clip]:
    return read_clips(tone_set(12, 2))


def generate(model: ToneModel, clips: Sequence[Clip], seed: int) -> torch.Tensor:
    return model.generate([clip.field("description") for clip in clips], seed=seed)


def real_audio(clips: Sequence[Clip]) -> torch.Tensor:
    return torch.stack([load_audio(clip.path, RATE) for clip in clips])


def update(metrics: GenerationMetrics, model: ToneModel, clips: Sequence[Clip], first: int = 0, step: int = 4) -> None:
    """Add batches of four clips, every `step` clips from `first` on."""
    for start in range(first, len(clips), step):
        batch = clips[start:start + 4]
        metrics.update(generate(model, batch, start), real_audio(batch), [clip.path for clip in batch], 0.5)


def test_a_model_that_follows_its_texts_beats_a_random_one(classifier: InstrumentClassifier, clips: list[Clip]) -> None:
    results, codec = {}, RoundingCodec()
    for follows_text in (True, False):
        metrics = GenerationMetrics(codec, classifier)
        update(metrics, ToneModel(follows_text), clips)
        results[follows_text] = metrics.compute()
    assert results[True]["instrument_accuracy"] == 1 > results[False]["instrument_accuracy"]
    assert results[True]["seconds_per_clip"] == 3 * 0.5 / 12
    generated = torch.cat([generate(ToneModel(), clips[first:first + 4], first) for first in (0, 4, 8)])
    points = [latents(codec, wav).double() for wav in (generated, real_audio(clips))]
    expected = frechet_distance(*(Gaussian(part.mean(0), torch.cov(part.T)) for part in points))
    assert results[True]["frechet"] == pytest.approx(expected, rel=1e-5)


def test_metrics_can_be_disabled(clips: list[Clip]) -> None:
    metrics = GenerationMetrics(RoundingCodec(), None, frechet=False)
    update(metrics, ToneModel(), clips)
    assert list(metrics.compute()) == ["seconds_per_clip"]


def test_the_metrics_of_three_ranks_equal_those_of_one_process(classifier: InstrumentClassifier, clips: list[Clip]) -> None:
    whole, ranks = GenerationMetrics(RoundingCodec(), classifier), [GenerationMetrics(RoundingCodec(), classifier)
                                                                    for _ in range(3)]
    update(whole, ToneModel(False), clips)
    for rank, metrics in enumerate(ranks):
        update(metrics, ToneModel(False), clips, first=4 * rank, step=12)
    # An all-reduce in two rounds: each rank contributes its tensors, then one of them receives the sums.
    contributed: list[list[torch.Tensor]] = []
    for metrics in ranks:
        contributed.append([])
        metrics.compute(lambda tensor: contributed[-1].append(tensor.clone()))
    sums = iter([sum(tensors) for tensors in zip(*contributed, strict=True)])
    assert ranks[1].compute(lambda tensor: tensor.copy_(next(sums))) == pytest.approx(whole.compute())


def test_a_clip_without_an_instrument_is_named(classifier: InstrumentClassifier, tmp_path: Path) -> None:
    clips = read_clips(write_tones(tmp_path, 3, 1))
    clips[0].path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="0.json has no `instrument`"):
        update(GenerationMetrics(RoundingCodec(), classifier, frechet=False), ToneModel(), clips)
