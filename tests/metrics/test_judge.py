"""Judging batch by batch, and rank by rank, against all at once."""
import typing as tp
from pathlib import Path

import pytest
import torch

from magnet_plugin.data.clips import Clip, load_audio, read_clips
from magnet_plugin.metrics.frechet import Moments, frechet_distance, gaussian, latents
from magnet_plugin.metrics.instruments import InstrumentClassifier
from magnet_plugin.metrics.judge import Judge

from .conftest import RATE, RoundingCodec, ToneModel

MakeSet = tp.Callable[[int, int], Path]


def test_moments_are_those_of_all_points() -> None:
    points = 3 + torch.randn(57, 5, generator=torch.Generator().manual_seed(0)) @ torch.randn(5, 5)
    moments, whole = Moments(), gaussian(points)
    for part in points.split(20):
        moments.add(part)
    found = moments.gaussian()
    assert torch.allclose(found.mean, whole.mean) and torch.allclose(found.covariance, whole.covariance)
    (lonely := Moments()).add(points[:1])
    with pytest.raises(ValueError, match="1 points are too few"):
        lonely.gaussian()


def feed(judge: Judge, model: ToneModel, clips: tp.Sequence[Clip]) -> None:
    for first in range(0, len(clips), 4):
        some = clips[first:first + 4]
        made = model.generate([clip.field("description") for clip in some], seed=first)
        judge.update(made, torch.stack([load_audio(clip.path, RATE) for clip in some]), [clip.path for clip in some], 0.5)


def test_it_hears_what_was_played(tone_set: MakeSet) -> None:
    classifier = InstrumentClassifier.train(tone_set(24, 1))
    clips, codec = read_clips(tone_set(12, 2)), RoundingCodec()
    found = {}
    for obedient in (True, False):
        judge = Judge(codec, classifier)
        feed(judge, ToneModel(obedient), clips)
        found[obedient] = judge.compute()
    assert found[True]["instrument_accuracy"] == 1 > found[False]["instrument_accuracy"]
    assert found[True]["seconds_per_clip"] == 3 * 0.5 / 12
    bare = Judge(codec, None, frechet=False)
    feed(bare, ToneModel(), clips)
    assert list(bare.compute()) == ["seconds_per_clip"]
    real = torch.stack([load_audio(clip.path, RATE) for clip in clips])
    made = torch.cat([ToneModel().generate([clip.field("description") for clip in clips[first:first + 4]], seed=first)
                      for first in (0, 4, 8)])
    assert found[True]["frechet"] == pytest.approx(frechet_distance(gaussian(latents(codec, made)),
                                                                    gaussian(latents(codec, real))), rel=1e-5)


def test_ranks_together_find_what_one_finds(tone_set: MakeSet) -> None:
    classifier, clips = InstrumentClassifier.train(tone_set(24, 1)), read_clips(tone_set(12, 2))
    whole, parts = Judge(RoundingCodec(), classifier), [Judge(RoundingCodec(), classifier) for _ in range(3)]
    feed(whole, ToneModel(False), clips)
    for rank, part in enumerate(parts):
        for first in range(4 * rank, 12, 12):
            some = clips[first:first + 4]
            part.update(ToneModel(False).generate([clip.field("description") for clip in some], seed=first),
                        torch.stack([load_audio(clip.path, RATE) for clip in some]), [clip.path for clip in some], 0.5)
    sums: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> None:
        position[0] += 1
        if len(sums) < position[0]:
            sums.append(torch.zeros_like(tensor))
        sums[position[0] - 1] += tensor

    def give(tensor: torch.Tensor) -> None:
        position[0] += 1
        tensor.copy_(sums[position[0] - 1])
    for part in parts:                                   # what an all-reduce does, in two rounds
        position = [0]
        part.compute(note)
    position = [0]
    assert parts[1].compute(give) == pytest.approx(whole.compute())


def test_a_clip_without_a_label_is_named(tone_set: MakeSet) -> None:
    clips = read_clips(tone_set(6, 1))
    judge = Judge(RoundingCodec(), InstrumentClassifier.train(clips[0].path.parent), frechet=False)
    clips[0].path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="0.json has no `instrument`"):
        feed(judge, ToneModel(), clips)
