"""Features of a set of clips, from which instrument accuracy and Fréchet distance are computed everywhere.

The solver's evaluation, the report on a model and `magnet bench quality` all score clips with this class.
"""
from __future__ import annotations

import typing as tp

import torch

from .codec import Codec
from .frechet import Moments, frechet_distance, latents
from .instruments import InstrumentClassifier, accuracy


class ClipFeatures:
    """Accumulates the predicted instruments and the codec latents of a set of clips, without keeping its audio.

    Args:
        codec: encodes the clips. Fréchet distances are only comparable under the same codec.
        classifier: predicts the instruments; None leaves `instruments` empty.
        frechet: whether to accumulate the latents, which the Fréchet distance needs.
    """

    def __init__(self, codec: Codec, classifier: tp.Optional[InstrumentClassifier], frechet: bool = True) -> None:
        self.codec, self.classifier, self.frechet = codec, classifier, frechet
        self.instruments: list[str] = []            # as the classifier predicts them, one per clip
        self.latents = Moments()

    def add(self, wav: torch.Tensor) -> None:
        """Add clips [B, C, T] at the codec's sample rate."""
        if self.classifier is not None:
            self.instruments += self.classifier.predict(wav, self.codec.sample_rate)
        if self.frechet:
            self.latents.add(latents(self.codec, wav.mean(1, keepdim=True)))

    def add_batches(self, audio: tp.Iterable[torch.Tensor]) -> ClipFeatures:
        """Add batches of clips [B, C, T], and return these features."""
        for wav in audio:
            self.add(wav)
        return self

    def accuracy(self, labels: tp.Sequence[str]) -> float:
        """Compute the share of clips whose predicted instrument equals their label; raises as `accuracy` does."""
        return accuracy(self.instruments, labels)

    def distance(self, other: ClipFeatures) -> float:
        """Compute the Fréchet distance to another set.

        Raises:
            ValueError: one of the sets has fewer than two frames.
        """
        return frechet_distance(self.latents.gaussian(), other.latents.gaussian())
