"""A codec whose tokens and audio can be computed by hand, for tests of what is built on codecs."""
import typing as tp

import torch
from audiocraft.models import CompressionModel
from torch.nn import functional as F


class ToyCodec(CompressionModel):
    """Codebook k holds the mean of the k-th quarter of a frame, in 40 steps from -1 to 1.

    Args:
        hop: samples of a frame, a multiple of four.
        frame_rate: frames per second.
        channels: number of audio channels, which share their tokens.
    """
    K, CARD = 4, 40

    def __init__(self, hop: int = 16, frame_rate: float = 50, channels: int = 1) -> None:
        super().__init__()
        self.hop, self._frame_rate, self._channels = hop, frame_rate, channels
        self.lengths: list[int] = []        # frames of each call

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, tp.Optional[torch.Tensor]]:
        assert x.dim() == 3 and x.shape[1] == self.channels and x.dtype == torch.float32
        padded = F.pad(x.mean(dim=1), (0, -x.shape[-1] % self.hop))
        quarters = padded.unflatten(-1, (-1, self.K, self.hop // self.K)).mean(dim=-1)              # [B, T, K]
        self.lengths.append(quarters.shape[1])
        codes = ((quarters + 1) * self.CARD / 2).long().clamp(0, self.CARD - 1)
        return codes.transpose(1, 2), None

    def decode(self, codes: torch.Tensor, scale: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
        self.lengths.append(codes.shape[-1])
        quarters = (codes.transpose(1, 2) + 0.5) * 2 / self.CARD - 1
        return quarters.repeat_interleave(self.hop // self.K, dim=-1).flatten(1)[:, None].expand(-1, self.channels, -1)

    def forward(self, x: torch.Tensor) -> tp.Any:
        raise NotImplementedError

    def decode_latent(self, codes: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def set_num_codebooks(self, n: int) -> None:
        raise NotImplementedError

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def frame_rate(self) -> float:
        return self._frame_rate

    @property
    def sample_rate(self) -> int:
        return int(self.hop * self._frame_rate)

    @property
    def cardinality(self) -> int:
        return self.CARD

    @property
    def num_codebooks(self) -> int:
        return self.K

    @property
    def total_codebooks(self) -> int:
        return self.K
