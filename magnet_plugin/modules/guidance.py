"""Classifier-free guidance (section 3.3): the formula, and a predictor that skips the unconditional branch where it can."""
import typing as tp

import torch

from .tokens import gather_frames

Forward = tp.Callable[[torch.Tensor, int, torch.Tensor, bool], torch.Tensor]
"""`forward(tokens [B, K, T], stage, frames [B, M], both_branches)` gives the conditional logits [B, M, card], or those of
both branches [2 B, M, card], the unconditional rows last."""
#: Which branches a step computes: the conditional one; both; or the conditional one, guided by the difference between the
#: branches that the last step with both has left.
Branches = tp.Literal["conditional", "both", "reuse"]
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


class BranchSchedule:
    """Decides which branches each step computes.

    Args:
        guided: whether there is a text to guide towards; without one the scale has no effect.
        every: compute the unconditional branch in every n-th guided step of a stage only, and reuse the last difference
            between the branches in between (after LazyMAR, arXiv 2503.12450). Values above 1 are approximate.
    """

    def __init__(self, guided: bool, every: int = 1) -> None:
        self.guided, self.every = guided, every
        self._stage, self._count = -1, 0

    def next(self, stage: int, scale: float) -> Branches:
        """Return the branches of the next step, which has this guidance scale."""
        if not self.guided or abs(scale - 1) < NO_GUIDANCE:
            return "conditional"
        self._count = self._count + 1 if stage == self._stage else 0
        self._stage = stage
        return "reuse" if self._count % self.every else "both"


class GuidedPredictor:
    """Guided logits of a model, as `decoding.magnet.Predict` describes them.

    The unconditional branch is only computed where it is needed, see `BranchSchedule`.

    Args:
        forward: the model's forward pass, see `Forward`.
        guided: see `BranchSchedule`.
        every: see `BranchSchedule`.
    """

    def __init__(self, forward: Forward, guided: bool, every: int = 1) -> None:
        self.forward, self.guided, self.every = forward, guided, every
        self._schedule = BranchSchedule(guided, every)
        self._stage = -1
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
        branches = self._schedule.next(stage, scale)
        logits = self.forward(tokens, stage, frames, branches == "both").float()
        if branches == "conditional":
            return logits
        if branches == "reuse":
            assert self._difference is not None
            return logits + (scale - 1) * gather_frames(self._difference, frames)
        conditional, unconditional = logits.chunk(2)
        if self.every > 1:
            self._store_difference(conditional - unconditional, stage, frames, tokens.shape[-1])
        return guide(conditional, unconditional, scale)

    def _store_difference(self, difference: torch.Tensor, stage: int, frames: torch.Tensor, length: int) -> None:
        if self._difference is None or stage != self._stage:
            self._difference = difference.new_zeros(difference.shape[0], length, difference.shape[-1])
            self._stage = stage
        self._difference.scatter_(1, frames[..., None].expand_as(difference), difference)
