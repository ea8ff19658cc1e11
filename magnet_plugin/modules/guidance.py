"""Classifier-free guidance (section 3.3): the formula, and a predictor that skips the unconditional branch where it can."""
import typing as tp

import torch

from .tokens import gather_frames

Forward = tp.Callable[[torch.Tensor, int, torch.Tensor, bool], torch.Tensor]
"""`forward(tokens [B, K, T], stage, frames [B, M], both_branches)` gives the conditional logits [B, M, card], or those of
both branches [2 B, M, card], the unconditional rows last."""
NO_GUIDANCE = 1e-5      # A scale this close to 1 counts as 1: the last scale of MAGNeT's schedule is 0.9999996.


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Move logits away from the unconditional ones: `unconditional + scale * (conditional - unconditional)`.

    Args:
        conditional: logits under the text, any shape.
        unconditional: logits without a text, same shape.
        scale: guidance scale; 1 returns the conditional logits up to rounding.
    """
    return unconditional + (conditional - unconditional) * scale


def guide_branches(logits: torch.Tensor, scale: float) -> torch.Tensor:
    """Apply `guide` to a batch that holds both branches: logits [2 B, ...], conditional rows first, to [B, ...]."""
    conditional, unconditional = logits.chunk(2)
    return guide(conditional, unconditional, scale)


def for_branches(rows: torch.Tensor, both_branches: bool) -> torch.Tensor:
    """Repeat a batch for the unconditional branch if that is computed too: [B, ...] -> [B, ...] or [2 B, ...]."""
    return torch.cat([rows, rows]) if both_branches else rows


class GuidedPredictor:
    """Guided logits of a model, as `decoding.magnet.Predict` describes them.

    The unconditional branch is not computed where the guidance scale is 1.

    Args:
        forward: the model's forward pass, see `Forward`.
        guided: whether there is a text to guide towards; without one the scale has no effect.
        every: compute the unconditional branch in every n-th step only, and reuse the last difference between the branches
            in between (after LazyMAR, arXiv 2503.12450). Values above 1 are approximate.
    """

    def __init__(self, forward: Forward, guided: bool, every: int = 1) -> None:
        self.forward, self.guided, self.every = forward, guided, every
        self._stage, self._step = -1, 0             # of the last guided call; steps count from 0 in each stage
        self._difference: tp.Optional[torch.Tensor] = None

    def logits(self, tokens: torch.Tensor, stage: int, scale: float, frames: torch.Tensor) -> torch.Tensor:
        """Predict codebook `stage` at some frames.

        Args:
            tokens: Long [B, K, T], the mask token where unknown.
            stage: codebook to predict.
            scale: guidance scale.
            frames: Long [B, M].
        Returns:
            Guided logits, float32 [B, M, card].
        """
        if not self.guided or abs(scale - 1) < NO_GUIDANCE:
            return self.forward(tokens, stage, frames, False).float()
        self._step = self._step + 1 if stage == self._stage else 0
        self._stage = stage
        if self._step % self.every:
            assert self._difference is not None
            conditional = self.forward(tokens, stage, frames, False).float()
            return conditional + (scale - 1) * gather_frames(self._difference, frames)
        conditional, unconditional = self.forward(tokens, stage, frames, True).float().chunk(2)
        if self.every > 1:
            self._store_difference(conditional - unconditional, frames, tokens.shape[-1])
        return guide(conditional, unconditional, scale)

    def _store_difference(self, difference: torch.Tensor, frames: torch.Tensor, length: int) -> None:
        if self._difference is None or self._step == 0:
            self._difference = difference.new_zeros(difference.shape[0], length, difference.shape[-1])
        self._difference.scatter_(1, frames[..., None].expand_as(difference), difference)
