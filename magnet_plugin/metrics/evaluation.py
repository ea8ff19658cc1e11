"""Evaluation of a model on held-out captions, by judges that it was not trained against, with 95% intervals.

Every judge is also applied to real clips and to the held-out clips after encoding and decoding: what it says of them bounds
what it can say of a model.
"""
from __future__ import annotations

import typing as tp
from pathlib import Path

import torch

from ..data.clips import batches, read_clips
from . import METRICS
from .codec import Codec, reconstruct
from .frechet import Gaussian, Moments, frechet_distance, latents
from .instruments import InstrumentClassifier
from .jackknife import Jackknife
from .judgement import Judgement, Scores
from .kernel_distance import KernelDistance
from .melody import NAMES as MELODY
from .melody import melody
from .notes import NoteTranscriber

DISTANCES = ("frechet", "kernel")         # between sets of clips; the others look at each clip by itself
BATCH = 8
Audio = tp.Sequence[torch.Tensor]               # batches [B, 1, samples]
Log = tp.Callable[[str], None]


class Evaluation:
    """Held-out clips and the judges.

    Args:
        codec: of the models that are compared; `frechet` and `kernel_codec` can only be compared under one codec.
        splits: manifest folders of the clips that the classifier is trained on, and of the held-out clips.
        clips: number of held-out clips, at least 3.
        metrics: some of METRICS.
        training_clips: number of clips that the classifier is trained on; None uses all.
    Raises:
        ValueError: there is no such metric, there are too few clips, or a clip lacks its caption, instrument or key.
        ImportError: a package of `melody` is missing.
    """

    def __init__(self, codec: Codec, splits: tuple[Path, Path], clips: int, metrics: tp.Sequence[str] = METRICS,
                 training_clips: tp.Optional[int] = None) -> None:
        unknown = [name for name in metrics if name not in METRICS]
        if unknown or not metrics:
            raise ValueError(f"metrics={list(metrics)}: choose from {', '.join(METRICS)}")
        self.codec, self.metrics, self.splits = codec, metrics, splits
        self.transcriber = NoteTranscriber() if "melody" in metrics else None
        self.heldout = read_clips(splits[1], clips)
        if len(self.heldout) < 3:
            raise ValueError(f"{splits[1]} has {len(self.heldout)} clips; intervals need at least 3")
        self.captions = [clip.field("description") for clip in self.heldout]
        self.instruments = [clip.field("instrument") for clip in self.heldout] if "instruments" in metrics else []
        self.keys = [clip.field("key") for clip in self.heldout] if self.transcriber else []
        self.classifier = None
        if {"instruments", "kernel"} & {*metrics}:
            self.classifier = InstrumentClassifier.train(splits[0], training_clips)
        self.audio = [wav for _, wav in batches(self.heldout, codec.sample_rate, BATCH)]
        self.real = ClipEmbeddings(self.audio, codec, self.classifier, metrics)

    def bounds(self) -> dict[str, Scores]:
        """Judge real clips.

        Returns:
            `held-out clips` themselves, by the judges that look at each clip; the distances from them to as many `training
            clips`; and the held-out clips `through the codec`.
        """
        alone, distances = ([name for name in self.metrics if (name in DISTANCES) == far] for far in (False, True))
        coded = [reconstruct(self.codec, wav) for wav in self.audio]
        others = [wav for _, wav in batches(read_clips(self.splits[0], len(self.captions)), self.codec.sample_rate, BATCH)]
        found = {"held-out clips": self.judge([self.audio], alone), "training clips": self.judge([others], distances),
                 "through the codec": self.judge([coded])}
        return {name: judgement.scores() for name, judgement in found.items()}

    def evaluate(self, model: tp.Any, seeds: tp.Iterable[int], log: Log = lambda text: None) -> Judgement:
        """Generate all captions with each seed, and judge the clips.

        Args:
            model: generates audio by `generate(descriptions, seed=...)`.
            seeds: of generation. A batch of captions has a seed of its own.
            log: receives a message before each seed.
        """
        return self.judge(list(self.generate(model, seeds, log)))

    def generate(self, model: tp.Any, seeds: tp.Iterable[int], log: Log = lambda text: None) -> tp.Iterator[Audio]:
        """Generate all captions with each seed, see `evaluate`; yields the clips of a seed."""
        for seed in seeds:
            log(f"seed {seed}: {len(self.captions)} clips")
            clips = (model.generate(self.captions[first:first + BATCH], seed=1000 * seed + first)
                     for first in range(0, len(self.captions), BATCH))
            yield [wav.float().cpu().mean(1, keepdim=True) for wav in clips]

    def judge(self, made: tp.Sequence[Audio], metrics: tp.Optional[tp.Sequence[str]] = None) -> Judgement:
        """Judge clips in the order of the captions, by one or more seeds, with all metrics or with some."""
        metrics = self.metrics if metrics is None else metrics
        found = [ClipEmbeddings(audio, self.codec, self.classifier, metrics) for audio in made]
        by_clip: dict[str, list[list[float]]] = {}
        distances: dict[str, Jackknife] = {}
        if "instruments" in metrics:
            by_clip["instruments"] = [[float(one == other) for one, other in zip(seed.instruments, self.instruments,
                                                                                 strict=True)] for seed in found]
        if "melody" in metrics:
            rows = [self._melodies(audio) for audio in made]
            by_clip |= {name: [[row[name] for row in seed] for seed in rows] for name in MELODY}
        if "frechet" in metrics:
            distances["frechet"] = Jackknife.of(lambda kept: sum(
                frechet_distance(seed.gaussian(kept), self.real.gaussian(kept)) for seed in found) / len(found),
                len(self.captions), correct=True)
        if "kernel" in metrics:
            for space in ("codec", "timbre"):
                distance = KernelDistance(torch.stack([seed.points[space] for seed in found]), self.real.points[space])
                distances[f"kernel_{space}"] = Jackknife.of(distance, len(self.captions))
        return Judgement(by_clip, distances)

    def _melodies(self, audio: Audio) -> list[dict[str, float]]:
        assert self.transcriber is not None
        rate = self.codec.sample_rate
        clips = [wav[0] for batch in audio for wav in batch]
        return [melody(self.transcriber.transcribe(wav, rate), len(wav) / rate, key)
                for wav, key in zip(clips, self.keys, strict=True)]


class ClipEmbeddings:
    """What the judges need of a set of clips, clip by clip.

    Attributes:
        instruments: as the classifier predicts them.
        points: embeddings [N, D] by space: mean and deviation over time of the codec's latents, and timbre features.
    """

    def __init__(self, audio: Audio, codec: Codec, classifier: tp.Optional[InstrumentClassifier], metrics: tp.Sequence[str]
                 ) -> None:
        self.instruments: list[str] = []
        self.moments: list[Moments] = []
        codec_points, timbre_points = [], []
        for wav in audio:
            if classifier is not None:
                self.instruments += classifier.predict(wav, codec.sample_rate)
                timbre_points.append(classifier.embed(wav, codec.sample_rate))
            if {"frechet", "kernel"} & {*metrics}:
                for clip in wav:
                    frames = latents(codec, clip[None])
                    self.moments.append(Moments())
                    self.moments[-1].add(frames)
                    codec_points.append(torch.cat([frames.mean(0), frames.std(0)])[None])
        self.points = {"codec": torch.cat(codec_points) if codec_points else torch.empty(0),
                       "timbre": torch.cat(timbre_points) if timbre_points else torch.empty(0)}

    def gaussian(self, kept: torch.Tensor) -> Gaussian:
        """Return mean and covariance of the latents of the clips that a mask, Bool [N], selects."""
        return Moments.sum_of([one for one, keep in zip(self.moments, kept.tolist(), strict=True) if keep]).gaussian()
