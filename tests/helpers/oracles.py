"""Functions in the place of a model."""
import typing as tp

import torch

from magnet_plugin.modules.tokens import gather_frames

AllFrames = tp.Callable[[torch.Tensor, int, float], torch.Tensor]


class Oracle:
    """A `decoding.magnet.Predict` from a function (tokens [B, K, T], stage, scale) -> logits [B, T, card]."""

    def __init__(self, function: AllFrames) -> None:
        self.function = function

    def logits(self, tokens: torch.Tensor, stage: int, scale: float, frames: torch.Tensor) -> torch.Tensor:
        return gather_frames(self.function(tokens, stage, scale), frames)
