"""The codec on audio of any length, piece by piece, so that memory does not grow with the length.

A piece is computed together with `MARGIN` seconds on either side of it, which are cut off. Convolutions reach less far; the
LSTM of a codec has no limit in principle, and forgets within that time.
"""
import typing as tp

import torch
from audiocraft.models import CompressionModel

from .stereo import frames_in_turn

PIECE = 30.0        # seconds that are encoded or decoded at a time
MARGIN = 1.0        # seconds on either side of a piece


def hop_length(codec: CompressionModel) -> int:
    """Return the number of samples of a frame.

    Raises:
        ValueError: it is not a whole number.
    """
    samples = codec.sample_rate / codec.frame_rate
    if abs(samples - round(samples)) > 1e-3:
        raise ValueError(f"a frame of this codec has {samples:g} samples; editing and long clips need a whole number")
    return round(samples)


@torch.no_grad()
def encode(codec: CompressionModel, audio: torch.Tensor) -> torch.Tensor:
    """Encode audio [B, C, samples] at the codec's sample rate: Long [B, K, T]."""
    hop, piece, margin = hop_length(codec), *_frames(codec)
    turns = frames_in_turn(codec)
    count = turns * -(-audio.shape[-1] // (turns * hop))
    parts = []
    for start in range(0, count, piece):
        first, last = max(start - margin, 0), min(start + piece + margin, count)
        codes, scale = codec.encode(audio[..., first * hop:last * hop])
        if scale is not None:
            raise ValueError("this codec rescales its input; editing needs one that does not")
        parts.append(codes[..., start - first:min(start + piece, count) - first])
    return torch.cat(parts, dim=-1)


@torch.no_grad()
def decode(codec: CompressionModel, tokens: torch.Tensor, start: int = 0, stop: tp.Optional[int] = None) -> torch.Tensor:
    """Decode the frames from `start` up to `stop` of a clip: Long [B, K, T] -> [B, C, (stop - start) * hop]."""
    hop, piece, margin = hop_length(codec), *_frames(codec)
    stop, parts = tokens.shape[-1] if stop is None else stop, []
    for begin in range(start, stop, piece):
        end = min(begin + piece, stop)
        first, last = max(begin - margin, 0), min(end + margin, tokens.shape[-1])
        audio = codec.decode(tokens[..., first:last].contiguous(), None)
        parts.append(audio[..., (begin - first) * hop:(end - first) * hop])
    return torch.cat(parts, dim=-1)


class AudioStream:
    """Decodes the leading frames of a clip as they become final.

    Args:
        codec: the codec.
        on_audio: called with (audio [B, C, samples], its start in seconds) for each piece.
    """

    def __init__(self, codec: CompressionModel, on_audio: tp.Optional[tp.Callable[[torch.Tensor, float], None]] = None
                 ) -> None:
        self.codec, self.on_audio = codec, on_audio
        self._done, self._pieces = 0, list[torch.Tensor]()

    def push(self, tokens: torch.Tensor, final: int) -> None:
        """Decode what is new: `tokens` is Long [B, K, T], of which the first `final` frames are final."""
        margin = _frames(self.codec)[1]
        stop = final if final == tokens.shape[-1] else final - margin
        if stop <= self._done:
            return
        piece = decode(self.codec, tokens[..., :final], self._done, stop)
        if self.on_audio is not None:
            self.on_audio(piece, self._done / float(self.codec.frame_rate))
        self._done = stop
        self._pieces.append(piece)

    def audio(self) -> torch.Tensor:
        """Return everything that has been decoded, [B, C, samples]."""
        return torch.cat(self._pieces, dim=-1)


def _frames(codec: CompressionModel) -> tuple[int, int]:
    turns = frames_in_turn(codec)
    return turns * round(PIECE * codec.frame_rate / turns), turns * round(MARGIN * codec.frame_rate / turns)
