"""Instrument classifier, trained only on real clips and applied to generated ones.

Its features are statistics over time of a log-mel spectrogram: the average spectrum, its variation, and how fast each
band rises and falls. They only cover the upper 20 dB, because quieter sound after a low-rate codec is mostly the codec's
own. For the same reason each real clip is also trained on in two randomly degraded versions. The output of a codec or of
a generative model is never part of the training data.
"""
from __future__ import annotations

import typing as tp
from pathlib import Path

import torch

from ..data.clips import batches, read_clips, resample
from .degradation import degrade
from .mel import decibels, mel_power

BANDS, LOW, HIGH, SPAN = 40, 60.0, 7600.0, 20.0      # mel bands, Hz, Hz, dB
LAG = 6                                              # frames: about a tenth of a second at 16 kHz
SHORTEST = 0.25                                      # seconds
DEGRADED_COPIES = 2                                  # of each training clip


def classifier_mel(wav: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Compute the mel power spectrogram that the classifier uses: [B, C, T] -> [B, bands, frames].

    Raises:
        ValueError: the shape is wrong, the clips are shorter than 0.25 s, or values are not finite.
    """
    if wav.dim() != 3 or wav.shape[-1] < SHORTEST * sample_rate:
        raise ValueError(f"wav {list(wav.shape)} must have the shape [B, C, T] and be at least {SHORTEST} s long at "
                         f"{sample_rate} Hz")
    if not wav.isfinite().all():
        raise ValueError("wav has values that are not finite; check the audio, or generate it with a float32 model")
    return mel_power(wav.float().mean(1), sample_rate, BANDS, LOW, min(HIGH, sample_rate / 2))


def timbre_features(power: torch.Tensor) -> torch.Tensor:
    """Compute features of each clip that do not depend on its level: mel power [B, bands, frames] -> [B, 5 * bands]."""
    level = decibels(power, power.amax((1, 2)), SPAN)
    active = (level.amax(1, keepdim=True) > -0.8 * SPAN).float()        # [B, 1, frames]: 0 in silence
    count = active.sum(-1).clamp_min(1)
    shape = level - level.mean(1, keepdim=True)
    mean = (shape * active).sum(-1) / count                             # [B, bands]
    deviation = ((shape - mean[..., None]).pow(2) * active).sum(-1).div(count).sqrt()
    step = level.diff(dim=-1)
    rise, fall = (part.clamp_min(0).pow(2).mean(-1).sqrt() for part in (step, -step))
    change = (level[..., LAG:] - level[..., :-LAG]).abs().mean(-1)
    return torch.cat([mean, deviation, rise, fall, change], dim=1)


class InstrumentClassifier:
    """A support vector machine on `timbre_features`.

    >>> classifier = InstrumentClassifier.train("folk/egs/train")    # doctest: +SKIP
    >>> classifier.predict(wav, 16000)          # wav is [B, C, T]   # doctest: +SKIP
    ['violin', 'organ']
    """

    def __init__(self, pipeline: tp.Any, sample_rate: int) -> None:
        self.pipeline = pipeline
        self.sample_rate = sample_rate

    @classmethod
    def train(cls, manifest_folder: tp.Union[str, Path], limit: tp.Optional[int] = None,
              sample_rate: int = 16000) -> InstrumentClassifier:
        """Train on a split whose JSON files have an `instrument`.

        Args:
            manifest_folder: manifest folder of the split.
            limit: maximum number of clips; None uses all.
            sample_rate: sample rate in Hz at which features are computed.
        Raises:
            ValueError: a clip has no instrument, or all clips have the same one.
        """
        powers, labels = [], []
        for clips, wav in batches(read_clips(manifest_folder, limit), sample_rate):
            labels += [clip.field("instrument") for clip in clips]
            powers.append(classifier_mel(wav, sample_rate))
        return cls.fit(powers, labels, sample_rate)

    @classmethod
    def fit(cls, powers: tp.Sequence[torch.Tensor], labels: tp.Sequence[str], sample_rate: int
            ) -> InstrumentClassifier:
        """Train on batches of `classifier_mel` and one label per clip.

        Raises:
            ValueError: all labels are the same.
        """
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC
        if len(set(labels)) < 2:
            raise ValueError(f"all clips have the instrument {', '.join(set(labels))}; the classifier needs at least two")
        generator = torch.Generator().manual_seed(0)
        rows = [timbre_features(power) for power in powers]
        for _ in range(DEGRADED_COPIES):
            rows += [timbre_features(degrade(power, generator)) for power in powers]
        pipeline = make_pipeline(StandardScaler(), SVC(C=10.0, gamma=0.3 / rows[0].shape[1]))
        return cls(pipeline.fit(torch.cat(rows).numpy(), list(labels) * (1 + DEGRADED_COPIES)), sample_rate)

    @property
    def instruments(self) -> list[str]:
        """Instruments that the classifier was trained on."""
        return [str(name) for name in self.pipeline.classes_]

    def predict(self, wav: torch.Tensor, sample_rate: int) -> list[str]:
        """Predict the instrument of each clip of audio [B, C, T] at `sample_rate` Hz; raises as `classifier_mel` does."""
        return [str(name) for name in self.pipeline.predict(self._features(wav, sample_rate).numpy())]

    def embed(self, wav: torch.Tensor, sample_rate: int) -> torch.Tensor:
        """Compute timbre features in units of their standard deviation over the training clips: [B, C, T] -> [B, D].

        Raises as `classifier_mel` does.
        """
        return torch.from_numpy(self.pipeline[0].transform(self._features(wav, sample_rate).numpy()))

    def _features(self, wav: torch.Tensor, sample_rate: int) -> torch.Tensor:
        wav = resample(wav.detach().cpu(), sample_rate, self.sample_rate)
        return timbre_features(classifier_mel(wav, self.sample_rate))


def accuracy(predicted: tp.Sequence[str], labels: tp.Sequence[str]) -> float:
    """Compute the share of predictions that equal their label.

    Raises:
        ValueError: the lengths differ, or there are no labels.
    """
    if len(predicted) != len(labels) or not labels:
        raise ValueError(f"{len(predicted)} clips and {len(labels)} labels; give one label per clip")
    return sum(one == other for one, other in zip(predicted, labels, strict=True)) / len(labels)
