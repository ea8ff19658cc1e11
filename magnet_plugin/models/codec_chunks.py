"""The codec on audio of any length, piece by piece, so that memory does not grow with the length.

A piece is computed together with `MARGIN` seconds on either side of it. Convolutions reach less far; the LSTM of a codec has
no limit in principle, and forgets within that time. A decoder that accumulates phase never does, so that neighbouring pieces
are cross-faded; pieces of other decoders agree there, and a cross-fade leaves them as they are.
"""
import typing as tp

import torch
from audiocraft.models import CompressionModel

from .stereo import frames_in_turn

PIECE = 30.0        # seconds that are encoded or decoded at a time
MARGIN = 1.0        # seconds on either side of a piece
FADE = 0.02         # seconds of the cross-fade between pieces


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
    """Encode audio [B, C, samples] at the codec's sample rate: Long [B, K, T].

    Raises:
        ValueError: the codec rescales its input, or its frames are not whole numbers of samples and the audio is long.
    """
    if audio.shape[-1] <= PIECE * codec.sample_rate:
        return _codes(codec, audio)
    hop, piece, margin = hop_length(codec), *_frames(codec)
    turns = frames_in_turn(codec)
    count = turns * -(-audio.shape[-1] // (turns * hop))
    parts = []
    for start in range(0, count, piece):
        first, last = max(start - margin, 0), min(start + piece + margin, count)
        codes = _codes(codec, audio[..., first * hop:last * hop])
        parts.append(codes[..., start - first:min(start + piece, count) - first])
    return torch.cat(parts, dim=-1)


def decode(codec: CompressionModel, tokens: torch.Tensor, start: int = 0, stop: tp.Optional[int] = None) -> torch.Tensor:
    """Decode the frames from `start` up to `stop` of a clip: Long [B, K, T] -> [B, C, (stop - start) * hop]."""
    stream = AudioStream(codec, start=start)
    stream.advance(tokens, tokens.shape[-1] if stop is None else stop)
    return stream.audio()


class AudioStream:
    """Decodes the leading frames of a clip as they become final.

    Args:
        codec: the codec.
        on_audio: called with (audio [B, C, samples], its start in seconds) for each piece.
        start: the frame to begin with.
    """

    def __init__(self, codec: CompressionModel, on_audio: tp.Optional[tp.Callable[[torch.Tensor, float], None]] = None,
                 start: int = 0) -> None:
        self.codec, self.on_audio = codec, on_audio
        self._done, self._pieces = start, list[torch.Tensor]()
        self._tail: tp.Optional[torch.Tensor] = None        # What the last piece holds of the next one's first samples.

    def push(self, tokens: torch.Tensor, final: int) -> None:
        """Decode what is new: `tokens` is Long [B, K, T], of which the first `final` frames are final."""
        stop = final if final == tokens.shape[-1] else final - _frames(self.codec)[1]
        self.advance(tokens[..., :final], stop)

    @torch.no_grad()
    def advance(self, tokens: torch.Tensor, stop: int) -> None:
        """Decode up to the frame `stop` of a clip, Long [B, K, T]; the frames around it are final."""
        length, piece = tokens.shape[-1], _frames(self.codec)[0]
        if not self._done and stop == length <= piece:      # A clip of one piece needs no whole number of samples a frame.
            self._finish(self.codec.decode(tokens, None), stop)
        while self._done < stop:
            self._decode(tokens, min(self._done + piece, stop))

    def audio(self) -> torch.Tensor:
        """Return everything that has been decoded, [B, C, samples]."""
        return torch.cat(self._pieces, dim=-1)

    def _decode(self, tokens: torch.Tensor, stop: int) -> None:
        hop, margin, start = hop_length(self.codec), _frames(self.codec)[1], self._done
        first, last = max(start - margin, 0), min(stop + margin, tokens.shape[-1])
        audio = self.codec.decode(tokens[..., first:last].contiguous(), None)
        audio, after = audio[..., (start - first) * hop:].tensor_split([(stop - start) * hop], dim=-1)
        if self._tail is not None:
            audio = _joined(self._tail, audio)
        self._tail = after[..., :round(FADE * self.codec.sample_rate)]
        self._finish(audio, stop)

    def _finish(self, audio: torch.Tensor, stop: int) -> None:
        if self.on_audio is not None:
            self.on_audio(audio, self._done / float(self.codec.frame_rate))
        self._done = stop
        self._pieces.append(audio)


def _joined(tail: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
    """Cross-fade from what the piece before contains of the beginning of a piece; both are [B, C, samples].

    The power is that of the two: weights that sum to 1 are right for equal signals, and are raised by as much as others
    cancel each other out.
    """
    count = min(tail.shape[-1], audio.shape[-1])
    old, new = tail[..., :count], audio[..., :count]
    energy = (old.square().sum(-1, keepdim=True) * new.square().sum(-1, keepdim=True)).sqrt()
    alike = ((old * new).sum(-1, keepdim=True) / energy.clamp_min(1e-12)).clamp(0, 1)
    rising = torch.linspace(0, 1, count + 2, device=audio.device, dtype=audio.dtype)[1:-1]
    power = rising.square() + (1 - rising).square() + 2 * alike * rising * (1 - rising)
    faded = (old * (1 - rising) + new * rising) / power.sqrt()
    return torch.cat([faded, audio[..., count:]], dim=-1)


def _codes(codec: CompressionModel, audio: torch.Tensor) -> torch.Tensor:
    codes, scale = codec.encode(audio)
    if scale is not None:
        raise ValueError("this codec rescales its input; editing and continuations need one that does not")
    return codes


def _frames(codec: CompressionModel) -> tuple[int, int]:
    turns = frames_in_turn(codec)
    return turns * round(PIECE * codec.frame_rate / turns), turns * round(MARGIN * codec.frame_rate / turns)
