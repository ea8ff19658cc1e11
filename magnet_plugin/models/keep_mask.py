"""Keep and Clip: a mask that says which tokens of a clip are kept, and what it knows about the clip; see `keep`."""
import dataclasses
import math
import typing as tp
from pathlib import Path

import torch
from audiocraft.models import CompressionModel

from . import keep_pictures
from .generation import frames as frames_of
from .stereo import codebooks_in_turn


def check_fraction(name: str, value: float) -> None:
    """Raise ValueError unless a setting is from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must be from 0 to 1")


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """What a mask knows about the clip that it is applied to.

    Attributes:
        codebooks: number of codebooks K.
        frames: number of frames T.
        frame_rate: frames per second.
        batch: number of samples B.
        audio: waveform [B, C, samples], for masks that follow it.
        sample_rate: of the audio in Hz.
        interleaved: number of channels whose codebooks alternate: 2 for AudioCraft's interleaved stereo.
    Raises:
        ValueError: a value is invalid; the message names the setting and the remedy.
    """
    codebooks: int
    frames: int
    frame_rate: float
    batch: int = 1
    audio: tp.Optional[torch.Tensor] = None
    sample_rate: tp.Optional[int] = None
    interleaved: int = 1

    def __post_init__(self) -> None:
        for name in ("codebooks", "frames", "batch", "interleaved"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.frame_rate > 0:
            raise ValueError(f"frame_rate={self.frame_rate} must be above 0; give the codec's frames per second")
        if self.codebooks % self.interleaved:
            raise ValueError(f"codebooks={self.codebooks} is not a multiple of interleaved={self.interleaved}; give the "
                             "number of codebooks of all channels together")
        if self.audio is not None and (self.audio.dim() != 3 or len(self.audio) != self.batch or not self.sample_rate):
            raise ValueError(f"audio has the shape {list(self.audio.shape)} and sample_rate={self.sample_rate}; give "
                             f"[{self.batch}, channels, samples] and its sample rate in Hz")

    @classmethod
    def of(cls, codec: CompressionModel, frames: int, batch: int = 1, audio: tp.Optional[torch.Tensor] = None,
           sample_rate: tp.Optional[int] = None) -> "Clip":
        """Describe a clip of a codec's tokens; see the attributes."""
        return cls(codec.num_codebooks, frames, float(codec.frame_rate), batch, audio, sample_rate, codebooks_in_turn(codec))

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.frames / self.frame_rate

    @property
    def levels(self) -> int:
        """Number of codebooks of each channel."""
        return self.codebooks // self.interleaved

    def covering(self, start: float, end: float) -> tuple[int, int]:
        """Return the first frame and the frame after the last of the smallest range that contains [start, end) s."""
        self._check_span(start, end)
        return self.floor(start), min(frames_of(end, self.frame_rate), self.frames)

    def within(self, start: float, end: float) -> tuple[int, int]:
        """Return the first frame and the frame after the last of the largest range inside [start, end) s."""
        self._check_span(start, end)
        first = min(frames_of(start, self.frame_rate), self.frames)
        return first, max(self.floor(end), first)

    def floor(self, seconds: float) -> int:
        """Number of whole frames in a time."""
        return math.floor(round(seconds * self.frame_rate, 6))

    def _check_span(self, start: float, end: float) -> None:
        if not 0 <= start < end <= self.duration + 1e-6:
            raise ValueError(f"the span ({start:g}, {end:g}) must satisfy 0 <= start < end <= {self.duration:g}, the length "
                             "of the clip in seconds")


@dataclasses.dataclass(frozen=True, eq=False)
class Keep:
    """A mask, applied to a clip by calling it.

    Attributes:
        rule: returns what is kept, on the CPU, Bool that broadcasts to [B, K, T].
        name: how the mask is written in Python.
    """
    rule: tp.Callable[[Clip], torch.Tensor]
    name: str

    def __call__(self, clip: Clip) -> torch.Tensor:
        """Return Bool [B, K, T] on the CPU, True where a token is kept."""
        return self.rule(clip).expand(clip.batch, clip.codebooks, clip.frames).clone()

    def __str__(self) -> str:
        return self.name

    def __or__(self, other: "Keep") -> "Keep":
        """Keep what either mask keeps."""
        return Keep(lambda clip: self.rule(clip) | other.rule(clip), f"({self} | {other})")

    def __and__(self, other: "Keep") -> "Keep":
        """Keep what both masks keep."""
        return Keep(lambda clip: self.rule(clip) & other.rule(clip), f"({self} & {other})")

    def __invert__(self) -> "Keep":
        """Keep what this mask does not keep."""
        return Keep(lambda clip: ~self.rule(clip), f"~{self}")

    def dropout(self, share: float, seed: int = 0) -> "Keep":
        """Forget a share of the frames in which anything is kept, at random.

        Args:
            share: from 0 (none) to 1 (all), rounded to whole frames. With the same seed, a larger share forgets the same
                frames and more.
            seed: chooses the frames. All samples of a batch draw the same random numbers, so that a sample does not
                depend on the others.
        """
        check_fraction("share", share)

        def rule(clip: Clip) -> torch.Tensor:
            kept = self(clip)
            present = kept.any(dim=1)                                                           # [B, T]
            draws = torch.rand(clip.frames, generator=torch.Generator().manual_seed(seed))
            rank = torch.where(present, draws, 2.0).argsort(dim=-1).argsort(dim=-1)
            forgotten = rank < (share * present.sum(dim=-1, keepdim=True)).round()
            return kept & ~forgotten[:, None]

        return Keep(rule, f"{self}.dropout({share:g}, seed={seed})")

    def picture(self, clip: Clip, sample: int = 0, width: int = 72) -> str:
        """Draw the mask of one sample as lines of text, `width` columns for the clip; see `keep_pictures.text`."""
        return keep_pictures.text(self(clip)[sample], clip.frame_rate, self.name, width)

    def figure(self, clip: Clip, sample: int = 0) -> tp.Any:
        """Draw the mask of one sample as a matplotlib figure, which the caller closes."""
        return keep_pictures.figure(self(clip)[sample], clip.frame_rate, self.name)

    def save(self, path: tp.Union[str, Path], clip: Clip, sample: int = 0) -> None:
        """Write the picture of one sample's mask to a PNG file."""
        keep_pictures.save(path, self(clip)[sample], clip.frame_rate, self.name)
