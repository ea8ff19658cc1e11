"""Metrics of generated clips against the real clips whose captions they were generated from, in batches and over ranks."""
from __future__ import annotations

import typing as tp
from pathlib import Path

import torch

from ..data.clips import read_clip
from .codec import Codec
from .features import ClipFeatures
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
        self.generated, self.real = ClipFeatures(codec, classifier, frechet), ClipFeatures(codec, None, frechet)
        self.labels: list[str] = []
        self.clips, self.seconds = 0, 0.0

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
        if self.generated.classifier is not None:
            self.labels += [read_clip(file).field("instrument") for file in files]
        self.generated.add(generated)
        self.real.add(real)

    def compute(self, all_reduce: AllReduce = lambda tensor: None) -> dict[str, float]:
        """Compute `seconds_per_clip` and, if enabled, `instrument_accuracy` and `frechet` over all batches.

        Args:
            all_reduce: sums a tensor over the ranks in place.
        """
        correct = self.clips * self.generated.accuracy(self.labels) if self.labels else 0.0
        counts = torch.tensor([self.clips, correct, self.seconds], dtype=torch.float64)
        all_reduce(counts)
        clips, correct, seconds = counts.tolist()
        metrics = {"seconds_per_clip": seconds / clips}
        if self.generated.classifier is not None:
            metrics["instrument_accuracy"] = correct / clips
        if self.generated.frechet:
            for features in (self.generated, self.real):
                features.latents.reduce(all_reduce)
            metrics["frechet"] = self.generated.distance(self.real)
        return metrics
