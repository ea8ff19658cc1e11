"""The sequence of Hybrid-MAGNeT (arXiv 2401.04577, section 3.5): the start of a clip autoregressively, the rest in parallel.

The paper describes only the idea; the layout below is ours. A sample has a switch n, from 0 to T + K - 1. Codebooks follow
the delay pattern 0, 1, ..., K - 1: step s holds the tokens (k, t) of codebook k and frame t with k + t = s. The first n
steps are autoregressive. The prefix of codebook k therefore consists of the frames below n - k, and the masked stages fill
in the others. The transformer reads one sequence of S = T + K columns:

    column                        content                                  position   attends to
    0, ..., n - 1                 in column j, token (k, j - 1 - k) of     j          columns 0 to j
      (autoregressive)            each codebook k; the special token
                                  where there is no such frame
    n, ..., n + T - 1 - first     in column n + i, all codebooks of        its        the frames in its stage's context:
      (parallel)                  frame first + i, where                   frame      their parallel columns, and the
                                  first = max(0, n - K)                               autoregressive ones with their tokens
    the last K - n, if n < K      special tokens                           -          itself; no other column attends to it
      (empty)

Column j < n predicts step j, as in MusicGen; the column of a frame predicts that frame, as in MAGNeT. The K frames before
the switch are in both parts, because their upper codebooks are still unknown. A stage without restricted context (the first
one) attends to all columns with content. Two special cases follow, and tests hold them exactly:

    n = 0           a plain MAGNeT: T columns, its positions, its context
    n = T           a MusicGen, with the complete steps of its delay pattern; n = T + K - 1 has all steps

Autoregressive columns never attend to the others, so their keys and values are computed once (see `models/lm_hybrid.py`).
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .context import Context


@dataclass(frozen=True, eq=False)
class HybridContext(Context):
    """Which columns attend to which, per sample. If there are fewer queries than keys, they are the last columns.

    Attributes:
        allowed: Bool [B, 1, S, S], True = attend.
    """
    allowed: Tensor

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> Tensor:
        if num_keys != self.allowed.shape[-1] or num_queries > num_keys:
            raise ValueError(f"this context is for {self.allowed.shape[-1]} columns, got {num_queries} queries and "
                             f"{num_keys} keys")
        return self.allowed[..., num_keys - num_queries:, :].to(device or self.allowed.device)


@dataclass(frozen=True, eq=False)
class Layout:
    """Positions of a batch's tokens in the sequence.

    Attributes:
        switch: n of each sample, Long [B], from 0 to T + K - 1.
        length: frames T.
        codebooks: K.
        columns: number of columns S; T + K are enough for every switch.
    """
    switch: Tensor
    length: int
    codebooks: int
    columns: int

    @staticmethod
    def of(switch: Tensor, length: int, codebooks: int) -> Layout:
        """Lay out samples with different switches."""
        return Layout(switch, length, codebooks, length + codebooks)

    @staticmethod
    def single(switch: int, batch: int, length: int, codebooks: int, device: torch.device | str | None = None) -> Layout:
        """Lay out samples with the same switch, without empty columns.

        Raises:
            ValueError: if there is no such step.
        """
        last = length + codebooks - 1
        if not 0 <= switch <= last:
            raise ValueError(f"the switch is a step from 0 to T + K - 1 = {last}, got {switch}")
        columns = switch + length - max(0, switch - codebooks)
        return Layout(torch.full((batch,), switch, device=device), length, codebooks, columns)

    @cached_property
    def _column(self) -> Tensor:
        return torch.arange(self.columns, device=self.switch.device)[None]             # [1, S]

    @cached_property
    def first_frame(self) -> Tensor:
        """The first frame that has a column of its own, Long [B]."""
        return (self.switch - self.codebooks).clamp(min=0)

    @cached_property
    def causal(self) -> Tensor:
        """Bool [B, S], True where a column is autoregressive."""
        return self._column < self.switch[:, None]

    @cached_property
    def frame(self) -> Tensor:
        """Long [B, S]: the frame of a column that is not autoregressive; T or more if the column is empty."""
        return (self.first_frame - self.switch)[:, None] + self._column

    @cached_property
    def positions(self) -> Tensor:
        """Long [B, S]: for the positional embedding."""
        return torch.where(self.causal, self._column, self.frame)

    @cached_property
    def prefix(self) -> Tensor:
        """Bool [B, K, T], True where the token is decoded autoregressively."""
        return self._step < self.switch[:, None, None]

    @cached_property
    def _step(self) -> Tensor:
        codebook, frame = (torch.arange(size, device=self.switch.device) for size in (self.codebooks, self.length))
        return codebook[:, None] + frame                                               # [K, T]

    def place(self, tokens: Tensor, special: int) -> Tensor:
        """Place tokens Long [B, K, T] into columns, Long [B, K, S]; `special` fills the places without a token."""
        codebook = torch.arange(self.codebooks, device=tokens.device)[:, None]
        delayed = self._column - 1 - codebook                                          # [K, S]
        frame = torch.where(self.causal[:, None], delayed, self.frame[:, None])        # [B, K, S]
        exists = (frame >= 0) & (frame < self.length)
        return tokens.gather(-1, frame.clamp(0, self.length - 1)).masked_fill(~exists, special)

    def realign(self, columns: Tensor) -> Tensor:
        """Reorder predictions by column into predictions by token.

        Args:
            columns: [B, K, S, D], or [B, S, D] for the parallel frames of one codebook.
        Returns:
            [B, K, T, D], or [B, T, D]; frames without a column of their own repeat another one.
        """
        own = torch.arange(self.length, device=columns.device) + (self.switch - self.first_frame)[:, None]   # [B, T]
        if columns.dim() == 3:
            index = own
        else:
            index = torch.where(self.prefix, self._step, own[:, None])                 # [B, K, T]
        index = index.clamp(max=self.columns - 1)
        return columns.gather(-2, index[..., None].expand(*index.shape, columns.shape[-1]))

    def context(self, stage: int, width: int) -> HybridContext:
        """Build the attention context of a stage.

        Args:
            stage: codebook that is predicted in parallel; the first one attends to everything.
            width: frames on either side that the other codebooks attend to; a negative width means all.
        """
        column, frame = self._column, self.frame                                       # [1, S], [B, S]
        queries, keys = frame[:, :, None], frame[:, None, :]                           # frames of parallel columns
        causal = self.causal[:, :, None] & (column[:, :, None] >= column[:, None, :])
        is_parallel = ~self.causal & (frame < self.length)
        # What a parallel query may attend to, by kind of key: [B, S or 1, S].
        to_parallel, to_causal = is_parallel[:, None, :], self.causal[:, None, :]
        if stage > 0 and width >= 0:
            to_parallel = to_parallel & ((queries - keys).abs() <= width)
            # Column j > 0 holds tokens of the frames j - K to j - 1, as far as they exist; one of them has to be near.
            oldest = (column - self.codebooks).clamp(min=0)[:, None, :]
            newest = (column - 1).clamp(max=self.length - 1)[:, None, :]
            to_causal = to_causal & (oldest <= queries + width) & (newest >= queries - width) & (column > 0)[:, None, :]
        diagonal = torch.eye(self.columns, dtype=torch.bool, device=frame.device)      # empty columns: no row may be empty
        parallel = torch.where(is_parallel[:, :, None], to_parallel | to_causal, diagonal)
        return HybridContext(torch.where(self.causal[:, :, None], causal, parallel)[:, None])
