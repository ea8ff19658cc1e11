"""The reference path of hybrid decoding: the model's own forward passes, with a KV cache of the autoregressive columns."""
import dataclasses
import typing as tp

import torch
from torch.nn import functional as F

from ..modules.context import Causal, Context, Full
from ..modules.guidance import for_branches, guide_branches
from ..modules.hybrid_layout import Layout
from ..modules.tokens import gather_frames
from .conditions import ConditionTensors, rows_of
from .transformer import CachedKeysValues, KVCache


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """Positions and attention context of the columns of a forward pass.

    Attributes:
        positions: for the positional embedding, Long [B, C].
        context: what the columns attend to.
    """
    positions: torch.Tensor
    context: Context


class HybridDecoder:
    """The forward passes of one clip, with a KV cache of the columns before the switch.

    Args:
        model: a `HybridMagnetLMModel`.
        tensors: embedded conditions, of B rows, or with guidance of 2 B rows, the unconditional ones last.
        batch: number of samples B.
        guided: whether there is a text to guide towards.
        switch: number of autoregressive steps n.
        length: number of frames T.
    Raises:
        ValueError: there is no such step.
    """

    def __init__(self, model: tp.Any, tensors: ConditionTensors, batch: int, guided: bool, switch: int,
                 length: int) -> None:
        self.model, self.tensors, self.guided, self.switch, self.steps = model, tensors, guided, switch, 0
        device = next(model.parameters()).device
        self.layout = Layout.single(switch, batch * (1 + guided), length, model.n_q, device)
        self.entries: CachedKeysValues = {}
        # The mask is shared by all rows. The first stage attends to everything and needs none.
        one = Layout.single(switch, 1, length, model.n_q, device)
        width = model.subcodes_context
        self.contexts = [Full() if k == 0 or width < 0 else one.context(k, width) for k in range(model.n_q)]

    def prefill(self, columns: torch.Tensor) -> None:
        """Read the first columns, Long [B, K, C], in one pass."""
        self._run(columns, Causal())

    def next_logits(self, column: torch.Tensor, scale: float) -> torch.Tensor:
        """Predict the next step from the column [B, K] before it; returns guided logits [B, K, card]."""
        if self.steps >= self.switch:
            raise ValueError(f"next_logits() was called more than {self.switch} times")
        logits = self._run(column[..., None], Full())[:, :, 0].float()
        # Both branches are always computed: the parallel steps need the cache of both.
        return guide_branches(logits, scale) if self.guided else logits

    def _run(self, columns: torch.Tensor, context: Context) -> torch.Tensor:
        """Cache the next columns, Long [B, K, C], and return their logits, [rows, K, C, card]."""
        first, self.steps = self.steps, self.steps + columns.shape[-1]
        placed = Columns(self.layout.positions[:, first:self.steps], KVCache(context, self.entries))
        return self.model.column_logits(for_branches(columns, self.guided), self.tensors, placed)

    def __call__(self, tokens: torch.Tensor, stage: int, frames: torch.Tensor, both_branches: bool) -> torch.Tensor:
        """Predict codebook `stage` at some frames; this is a `guidance.Forward`.

        Args:
            tokens: Long [B, K, T], the special token where unknown.
            stage: the codebook.
            frames: Long [B, M].
            both_branches: compute the unconditional branch too.
        Returns:
            [B, M, card], or [2 B, M, card]; zero for frames without a column of their own, which are known.
        """
        if self.steps != self.switch:
            raise ValueError(f"decode all {self.switch} prompt steps first; only {self.steps} are decoded")
        tokens, frames = for_branches(tokens, both_branches), for_branches(frames, both_branches)
        layout = dataclasses.replace(self.layout, switch=self.layout.switch[:len(tokens)])
        context = KVCache(self.contexts[stage], self.entries, frozen=True)
        columns = Columns(layout.positions[:, self.switch:], context)
        sequence = layout.place(tokens, self.model.special_token_id)[..., self.switch:]
        logits = self.model.column_logits(sequence, rows_of(self.tensors, len(tokens)), columns, stage, one_head=True)
        return gather_frames(F.pad(logits, (0, 0, tokens.shape[-1] - logits.shape[1], 0)), frames)
