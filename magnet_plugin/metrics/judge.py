"""Generated clips beside the real ones they were captioned by, batch by batch and over all ranks."""
from __future__ import annotations

import typing as tp
from pathlib import Path

import torch

from ..data.clips import read_clip
from .frechet import LatentCodec, Moments, frechet_distance, latents
from .instruments import InstrumentClassifier

Reduce = tp.Callable[[torch.Tensor], tp.Any]


class Judge:
    """Fréchet distance in the codec's latents, accuracy of the instrument that the caption names, seconds per clip.

    Args:
        codec: of the model that is judged; distances compare under one codec alone.
        classifier: hears the instruments; None leaves the accuracy out.
        frechet: whether to measure the distance.
    """

    def __init__(self, codec: LatentCodec, classifier: tp.Optional[InstrumentClassifier], frechet: bool = True) -> None:
        self.codec, self.classifier, self.frechet = codec, classifier, frechet
        self.made, self.real = Moments(), Moments()
        self.clips = self.right = 0
        self.seconds = 0.0

    def update(self, made: torch.Tensor, real: torch.Tensor, files: tp.Sequence[Path], seconds: float) -> None:
        """Add a batch.

        Args:
            made: generated audio [B, C, T] at the codec's rate.
            real: audio of the clips whose captions it was made from, [B, C, T'].
            files: of those clips; the JSON beside each names its `instrument`.
            seconds: that generating took.
        Raises:
            ValueError: a clip names no instrument.
        """
        self.clips += len(files)
        self.seconds += seconds
        if self.classifier is not None:
            labels = [read_clip(file).field("instrument") for file in files]
            heard = self.classifier.predict(made, self.codec.sample_rate)
            self.right += sum(one == other for one, other in zip(heard, labels, strict=True))
        if self.frechet:
            self.made.add(latents(self.codec, made.mean(1, keepdim=True)))
            self.real.add(latents(self.codec, real.mean(1, keepdim=True)))

    def compute(self, reduce: Reduce = lambda tensor: None) -> dict[str, float]:
        """`frechet`, `instrument_accuracy` and `seconds_per_clip` over all that was added.

        Args:
            reduce: sums a tensor over the ranks, in place.
        """
        counts = torch.tensor([self.clips, self.right, self.seconds], dtype=torch.float64)
        reduce(counts)
        clips, right, seconds = counts.tolist()
        found = {"seconds_per_clip": seconds / clips}
        if self.classifier is not None:
            found["instrument_accuracy"] = right / clips
        if self.frechet:
            made, real = self.made.over_ranks(reduce), self.real.over_ranks(reduce)
            found["frechet"] = frechet_distance(made.gaussian(), real.gaussian())
        return found
