"""Metrics of generated clips against the real clips whose captions they were generated from, in batches and over ranks."""
from __future__ import annotations

import typing as tp
from pathlib import Path

import torch

from ..data.clips import read_clip
from .codec import Codec
from .frechet import Moments, frechet_distance, latents
from .instruments import InstrumentClassifier

AllReduce = tp.Callable[[torch.Tensor], tp.Any]


class GenerationMetrics:
    """Accumulates Fréchet distance, instrument accuracy and generation time.

    Args:
        codec: the codec of the evaluated model. Distances are only comparable under the same codec.
        classifier: predicts the instruments of generated clips; None omits the accuracy.
        frechet: whether to compute the Fréchet distance.
    """

    def __init__(self, codec: Codec, classifier: tp.Optional[InstrumentClassifier], frechet: bool = True) -> None:
        self.codec, self.classifier, self.frechet = codec, classifier, frechet
        self.generated, self.real = Moments(), Moments()
        self.clips = self.correct = 0
        self.seconds = 0.0

    def update(self, generated: torch.Tensor, real: torch.Tensor, files: tp.Sequence[Path], seconds: float) -> None:
        """Add a batch.

        Args:
            generated: generated audio [B, C, T] at the codec's sample rate.
            real: audio [B, C, T'] of the clips whose captions were used.
            files: paths of those clips; the JSON file next to each has its `instrument`.
            seconds: time that the generation took.
        Raises:
            ValueError: a clip has no instrument.
        """
        self.clips += len(files)
        self.seconds += seconds
        if self.classifier is not None:
            labels = [read_clip(file).field("instrument") for file in files]
            predicted = self.classifier.predict(generated, self.codec.sample_rate)
            self.correct += sum(one == other for one, other in zip(predicted, labels, strict=True))
        if self.frechet:
            self.generated.add(latents(self.codec, generated.mean(1, keepdim=True)))
            self.real.add(latents(self.codec, real.mean(1, keepdim=True)))

    def compute(self, all_reduce: AllReduce = lambda tensor: None) -> dict[str, float]:
        """Compute `seconds_per_clip` and, if enabled, `instrument_accuracy` and `frechet` over all batches.

        Args:
            all_reduce: sums a tensor over the ranks in place.
        """
        counts = torch.tensor([self.clips, self.correct, self.seconds], dtype=torch.float64)
        all_reduce(counts)
        clips, correct, seconds = counts.tolist()
        metrics = {"seconds_per_clip": seconds / clips}
        if self.classifier is not None:
            metrics["instrument_accuracy"] = correct / clips
        if self.frechet:
            for moments in (self.generated, self.real):
                moments.reduce(all_reduce)
            metrics["frechet"] = frechet_distance(self.generated.gaussian(), self.real.gaussian())
        return metrics
