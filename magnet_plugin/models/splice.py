"""Puts generated audio into a recording: exact outside of the edited regions, without clicks at their ends."""
import dataclasses
import math
import typing as tp

import torch
from audiocraft.data.audio_utils import convert_audio
from torch.nn import functional as F

FADE = 0.02         # seconds of a cross-fade; it lies inside of the edited region
CONTEXT = 1.0       # seconds of known audio, on either side of a region, that loudness is matched by
MAX_GAIN = 2.0      # loudness is matched by at most this factor


@dataclasses.dataclass(frozen=True)
class Region:
    """Frames from `start` up to, but not including, `stop`, that are edited."""
    start: int
    stop: int


def regions_of(edited: torch.Tensor, merge: int = 0) -> list[Region]:
    """Find the runs of True in Bool [T]; runs that are at most `merge` frames apart become one."""
    regions: list[Region] = []
    for frame in edited.nonzero()[:, 0].tolist():
        if regions and frame - regions[-1].stop <= merge:
            regions[-1] = Region(regions[-1].start, frame + 1)
        else:
            regions.append(Region(frame, frame + 1))
    return regions


class Canvas:
    """A recording that generated audio is put into.

    Args:
        audio: [C, samples]; it is copied.
        sample_rate: its sample rate in Hz.
        first, last: the samples from `first` up to `last` hold the recording; there is nothing to fade from outside of them.
    """

    def __init__(self, audio: torch.Tensor, sample_rate: int, first: int = 0, last: tp.Optional[int] = None) -> None:
        self.audio, self.sample_rate = audio.clone(), sample_rate
        self.first, self.last = first, audio.shape[-1] if last is None else last

    def put(self, piece: torch.Tensor, rate: int, piece_start: float, start: float, stop: float) -> None:
        """Replace the audio between two times.

        Args:
            piece: generated audio [C', samples] that covers them. What it has before and after them is known, and should
                sound as the recording does there; loudness is matched by it.
            rate: its sample rate in Hz.
            piece_start: its start in seconds.
            start, stop: the times in seconds.
        """
        piece = convert_audio(piece, rate, self.sample_rate, self.audio.shape[0]).to(self.audio)
        begin, end, offset = self._sample(start), min(self._sample(stop), self.audio.shape[-1]), self._sample(piece_start)
        piece = F.pad(piece, (0, max(end - offset - piece.shape[-1], 0)))       # Resampling may round down.
        piece = piece * self._gain(piece, offset, begin, end)
        new, old = piece[:, begin - offset:end - offset].clone(), self.audio[:, begin:end]
        longest = min(round(FADE * self.sample_rate), (end - begin) // 2)
        if begin > self.first:
            rising = _rising(min(longest, self.last - begin)).to(new)
            head = slice(len(rising))
            new[:, head] = new[:, head] * rising + old[:, head] * rising.flip(0)
        if end < self.last:
            rising = _rising(min(longest, end - self.first)).to(new)
            tail = slice(new.shape[-1] - len(rising), None)
            new[:, tail] = new[:, tail] * rising.flip(0) + old[:, tail] * rising
        self.audio[:, begin:end] = new

    def _sample(self, seconds: float) -> int:
        return round(seconds * self.sample_rate)

    def _gain(self, piece: torch.Tensor, offset: int, begin: int, end: int) -> float:
        """Return the factor by which the recording is louder than the piece, where both hold the same music."""
        reach, recorded, generated = round(CONTEXT * self.sample_rate), 0.0, 0.0
        for low, high in ((max(begin - reach, offset, self.first), begin),
                          (end, min(end + reach, offset + piece.shape[-1], self.last))):
            if high > low:
                recorded += float(self.audio[:, low:high].square().sum())
                generated += float(piece[:, low - offset:high - offset].square().sum())
        if min(recorded, generated) <= 1e-8:
            return 1.0
        return min(max(math.sqrt(recorded / generated), 1 / MAX_GAIN), MAX_GAIN)


def _rising(samples: int) -> torch.Tensor:
    """Return the weights of what fades in; reversed, they are those of what fades out, and their squares sum to 1."""
    return torch.sin(torch.linspace(0, math.pi / 2, max(samples, 0) + 2)[1:-1])
