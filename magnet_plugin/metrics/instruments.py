"""Which instrument is heard: a classifier learned from real clips alone, to judge generated ones.

Its features are statistics of a log-mel spectrogram over time: which bands sound, how much each of them moves, how fast
it rises and falls. They span 20 dB: what a low-rate codec leaves of quieter sound is mostly its own. For the same
reason it learns each real clip twice more, as a poor channel leaves it. It never hears a codec or a model while it
learns.
"""
from __future__ import annotations

import typing as tp
from pathlib import Path

import torch

from ..data.clips import batches, read_clips, resample
from .channel import poor_channel
from .mel import decibels, mel_power

BANDS, LOW, HIGH, SPAN = 40, 60.0, 7600.0, 20.0      # mel bands, Hz, Hz, dB
LAG = 6                                              # frames: about a tenth of a second at 16 kHz
SHORTEST = 0.25                                      # seconds
COPIES = 2                                           # of each clip through a poor channel


def mel_of(wav: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """What `timbre` looks at: [B, C, T] -> mel power [B, bands, frames].

    Raises:
        ValueError: not [B, C, T], below a quarter of a second, or not finite.
    """
    if wav.dim() != 3 or wav.shape[-1] < SHORTEST * sample_rate:
        raise ValueError(f"wav {list(wav.shape)} must be [B, C, T] of at least {SHORTEST} s at {sample_rate} Hz")
    if not wav.isfinite().all():
        raise ValueError("wav holds values that are not finite")
    return mel_power(wav.float().mean(1), sample_rate, BANDS, LOW, min(HIGH, sample_rate / 2))


def timbre(power: torch.Tensor) -> torch.Tensor:
    """Features of each clip, whatever its level: mel power [B, bands, frames] -> [B, D]."""
    level = decibels(power, power.amax((1, 2)), SPAN)
    active = (level.amax(1, keepdim=True) > -0.8 * SPAN).float()        # [B, 1, frames]: not silence
    count = active.sum(-1).clamp_min(1)
    shape = level - level.mean(1, keepdim=True)
    mean = (shape * active).sum(-1) / count                             # [B, bands]
    deviation = ((shape - mean[..., None]).pow(2) * active).sum(-1).div(count).sqrt()
    step = level.diff(dim=-1)
    rise, fall = (part.clamp_min(0).pow(2).mean(-1).sqrt() for part in (step, -step))
    sway = (level[..., LAG:] - level[..., :-LAG]).abs().mean(-1)
    return torch.cat([mean, deviation, rise, fall, sway], dim=1)


class InstrumentClassifier:
    """A support vector machine on `timbre`.

    >>> judge = InstrumentClassifier.train("folk/egs/train")         # doctest: +SKIP
    >>> judge.predict(wav, 16000)               # wav is [B, C, T]   # doctest: +SKIP
    ['violin', 'organ']
    """

    def __init__(self, pipeline: tp.Any, sample_rate: int) -> None:
        self.pipeline = pipeline
        self.sample_rate = sample_rate

    @classmethod
    def train(cls, manifest_folder: tp.Union[str, Path], limit: tp.Optional[int] = None,
              sample_rate: int = 16000) -> InstrumentClassifier:
        """Learn from the first `limit` clips (None: all) of a split, whose JSON files name an `instrument` each.

        Args:
            sample_rate: at which the clips are looked at, in Hz.
        Raises:
            ValueError: a clip names no instrument, or all name the same one.
            ImportError: scikit-learn is missing.
        """
        powers, labels = [], []
        for clips, wav in batches(read_clips(manifest_folder, limit), sample_rate):
            labels += [clip.field("instrument") for clip in clips]
            powers.append(mel_of(wav, sample_rate))
        return cls.fit(powers, labels, sample_rate)

    @classmethod
    def fit(cls, powers: tp.Sequence[torch.Tensor], labels: tp.Sequence[str], sample_rate: int
            ) -> InstrumentClassifier:
        """Learn from batches of `mel_of` and the labels of all their clips; raises as `train` does."""
        try:
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
            from sklearn.svm import SVC
        except ImportError as error:
            raise ImportError("judging instruments needs scikit-learn: pip install scikit-learn") from error
        if len(set(labels)) < 2:
            raise ValueError(f"all clips are labelled {', '.join(set(labels))}: a classifier needs two instruments")
        generator = torch.Generator().manual_seed(0)
        rows = [timbre(power) for power in powers]
        for _ in range(COPIES):
            rows += [timbre(poor_channel(power, generator)) for power in powers]
        machine = SVC(C=10.0, gamma=0.3 / rows[0].shape[1])
        pipeline = make_pipeline(StandardScaler(), machine)
        return cls(pipeline.fit(torch.cat(rows).numpy(), list(labels) * (1 + COPIES)), sample_rate)

    @property
    def instruments(self) -> list[str]:
        """The names it knows."""
        return [str(name) for name in self.pipeline.classes_]

    def predict(self, wav: torch.Tensor, sample_rate: int) -> list[str]:
        """The instrument of each clip of [B, C, T] at `sample_rate` Hz; raises as `mel_of` does."""
        wav = resample(wav.detach().cpu(), sample_rate, self.sample_rate)
        return [str(name) for name in self.pipeline.predict(timbre(mel_of(wav, self.sample_rate)).numpy())]

    def accuracy(self, wavs: torch.Tensor, labels: tp.Sequence[str], sample_rate: tp.Optional[int] = None) -> float:
        """Share of [B, C, T] that it hears as `labels` say; `sample_rate` None is the classifier's own."""
        return agreement(self.predict(wavs, sample_rate or self.sample_rate), labels)


def agreement(heard: tp.Sequence[str], labels: tp.Sequence[str]) -> float:
    """Share of equal names.

    Raises:
        ValueError: the numbers differ, or there are none.
    """
    if len(heard) != len(labels) or not labels:
        raise ValueError(f"{len(heard)} clips and {len(labels)} labels: give one label per clip")
    return sum(a == b for a, b in zip(heard, labels, strict=True)) / len(labels)
