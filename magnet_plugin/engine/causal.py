"""Autoregressive decoding by the fast path: one column of the delay pattern after another, with a KV cache.

A column holds the tokens of one step of the delay pattern, see `modules.hybrid_layout`. `HybridSession` goes on in parallel
after the autoregressive columns.
"""
import typing as tp
import weakref

import torch
from torch.nn import functional as F

from ..modules.context import Causal, Context, Full
from ..modules.guidance import guide_branches
from ..modules.hybrid_layout import Layout
from .forward import Session
from .kept import Kept
from .kv_cache import AddedMask, CachedColumns

S = tp.TypeVar("S", bound="CausalSession")


class CausalSession(Session):
    """The forward passes of autoregressive decoding.

    Args:
        session: the model and its text.
        batch: number of samples B.
        guided: whether to compute the unconditional branch too.
        steps: number of columns n to decode.
        columns: number of columns of the cache, if there are more.
    """

    def __init__(self, session: Session, batch: int, guided: bool, steps: int, columns: int = 0) -> None:
        super().__init__(session.engine, session.text)
        self.batch, self.guided, self.switch, self.steps = batch, guided, steps, 0
        self.cache = self.engine.kv_cache(batch, batch * (1 + guided), max(steps, columns))
        self._positions = self.engine.positions(max(steps, 1))

    @property
    def decoders(self) -> Kept:
        """What was built for the cache, which owns it."""
        return self.cache.decoders

    def to_keep(self: S) -> S:
        """See `Session.to_keep`."""
        copied = super().to_keep()
        copied.cache = weakref.proxy(self.cache)
        return copied

    def prefill(self, columns: torch.Tensor) -> None:
        """Read the first columns, Long [B, K, C], in one pass; the next step is the one after them."""
        count = columns.shape[-1]
        if count:
            self.engine.hidden(columns, self.text, CachedColumns(self.cache, 0, count, Causal()), self.guided,
                               positions=self._positions[:count])
        self.steps = count

    def next_logits(self, column: torch.Tensor, scale: float) -> torch.Tensor:
        """Predict the next step from the column before it; this is an `autoregressive.NextLogits`.

        Args:
            column: Long [B, K].
            scale: guidance scale; it has no effect without guidance.
        Returns:
            Guided logits, float32 [B, K, card].
        """
        if self.steps >= self.switch:
            raise ValueError(f"next_logits() was called more than {self.switch} times")
        step = self.steps
        self.steps += 1
        logits = self.column_logits(column[..., None], CachedColumns(self.cache, step, step + 1),
                                    self._positions[step:step + 1])
        return guide_branches(logits, scale) if self.guided else logits

    def logits_at(self, column: torch.Tensor, index: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Predict the next step like `next_logits`, with a position that is read from the device.

        Args:
            column: Long [B, K, 1].
            index: number of the column, Long [1].
            mask: added to the scores of the first columns, [1, 1, 1, C]; -inf for those after `index`.
        Returns:
            Float32 [rows, K, card], the unconditional branch below the conditional one.
        """
        context = CachedColumns(self.cache, index, mask.shape[-1], AddedMask(mask))
        return self.column_logits(column, context, self._positions.index_select(0, index))

    def column_logits(self, column: torch.Tensor, context: Context, positions: torch.Tensor) -> torch.Tensor:
        """Run one column [B, K, 1]; returns the logits of all codebooks, float32 [rows, K, card]."""
        x = self.engine.hidden(column, self.text, context, self.guided, positions=positions)
        return torch.cat([self.engine.head(x, k) for k in range(column.shape[1])], dim=1)


class HybridSession(CausalSession):
    """A hybrid model's forward passes: autoregressive steps, then parallel ones with the cached columns.

    Args:
        session: the model and its text.
        batch: number of samples B.
        guided: whether there is a text to guide towards.
        switch: number of autoregressive steps n.
        length: number of frames T.
        width: frames on either side that codebooks above the first attend to; a negative width means all.
    """

    def __init__(self, session: Session, batch: int, guided: bool, switch: int, length: int, width: int
                 ) -> None:
        engine = session.engine
        codebooks = len(engine.heads)
        layout = Layout.single(switch, 1, length, codebooks, engine.device)
        super().__init__(session, batch, guided, switch, layout.columns)
        self.kind = (switch, length, width)
        self.first = max(0, switch - codebooks)             # The first frame that has a column of its own.
        self._columns = layout.columns
        self._frame_positions = engine.positions(length)[self.first:]
        restricted: Context = Full()
        if width >= 0 and codebooks > 1:
            restricted = AddedMask.of(layout.context(1, width), length - self.first, layout.columns, engine.dtype,
                                      engine.device)
        self._contexts = [Full(), *[restricted] * (codebooks - 1)]

    def logits(self, tokens: torch.Tensor, stage: int, both_branches: bool, frames: tp.Optional[torch.Tensor] = None
               ) -> torch.Tensor:
        """Predict codebook `stage` like `Session.logits`; arbitrary for frames without a column of their own."""
        if self.steps != self.switch:
            raise ValueError(f"decode all {self.switch} prompt steps first; only {self.steps} are decoded")
        context = CachedColumns(self.cache, self.switch, self._columns, self._contexts[stage])
        columns = None if frames is None else (frames - self.first).clamp_min(0)
        x = self.engine.hidden(tokens[..., self.first:], self.text, context, both_branches, columns, self._frame_positions)
        logits = self.engine.head(x, stage)
        return logits if frames is not None else F.pad(logits, (0, 0, self.first, 0))
