"""Hybrid-MAGNeT (arXiv 2401.04577): the first part of a clip token by token, the rest in parallel, by one transformer.

The paper tells the idea alone; the layout is this module's. A sample has a switch n, from 0 to T + K - 1. Tokens are
written in the delay pattern 0, 1, ..., K - 1: step s writes the tokens (k, t) with k + t = s. The first n steps are
autoregressive, so that of codebook k the frames below n - k are the prefix (its boundary lies at n - k), and the masked
stages fill in the rest. The transformer reads one row of S = T + K columns:

    column          holds                                     position   attends to
    j < n           tokens (k, j - 1 - k), or the special      j          columns up to j
                    token where there is no such frame
    n, n + 1, ...   frames max(0, n - K), ..., T - 1, all      frame      as the stage does: columns of frames, and
                    codebooks of a frame together                         columns j < n that hold a token of its frames
    the rest        special tokens (n < K alone)               -          themselves, and nothing attends to them

Column j < n predicts step j, as MusicGen's; a frame's column predicts that frame, as MAGNeT's. The K frames before the
switch stand in both parts, as their upper codebooks are still open. A stage without restricted context (the first)
attends to all that is held. Two ends follow, and are tested to be exact:

    n = 0           a plain MAGNeT: T columns, its positions, its context
    n = T           a MusicGen: the steps of its delay pattern that are complete; n = T + K - 1 has all of them

What is autoregressive never looks at what is not, so its keys and values are computed once (see lm_hybrid.py).
"""
from __future__ import annotations

import typing as tp
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .attention import Context
from .losses import masked_cross_entropy
from .masking import hidden, stage_mask


@dataclass(frozen=True, eq=False)
class Joint(Context):
    """Which columns attend to which in each sample. Queries are the last columns, where there are fewer of them.

    Attributes:
        allowed: Bool [B, 1, S, S], True = attend.
    """
    allowed: Tensor

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> Tensor:
        if num_keys != self.allowed.shape[-1] or num_queries > num_keys:
            raise ValueError(f"this context is for {self.allowed.shape[-1]} columns, got {num_queries} queries and "
                             f"{num_keys} keys.")
        return self.allowed[..., num_keys - num_queries:, :].to(device or self.allowed.device)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tokens of a batch stand.

    Attributes:
        switch: n of each sample, Long [B], from 0 to T + K - 1.
        length: frames T.
        codebooks: K.
        columns: number of columns S; T + K serve every switch.
    """
    switch: Tensor
    length: int
    codebooks: int
    columns: int

    @staticmethod
    def of(switch: Tensor, length: int, codebooks: int) -> Layout:
        """For switches that differ between samples."""
        return Layout(switch, length, codebooks, length + codebooks)

    @staticmethod
    def single(switch: int, batch: int, length: int, codebooks: int, device: torch.device | str | None = None) -> Layout:
        """For one switch, without columns that hold nothing.

        Raises:
            ValueError: if there is no such step.
        """
        last = length + codebooks - 1
        if not 0 <= switch <= last:
            raise ValueError(f"the switch is a step from 0 to T + K - 1 = {last}, got {switch}.")
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
        """Long [B, S]: the frame of a column that is not autoregressive; T or more where it holds nothing."""
        return (self.first_frame - self.switch)[:, None] + self._column

    @cached_property
    def positions(self) -> Tensor:
        """Long [B, S]: for the positional embedding."""
        return torch.where(self.causal, self._column, self.frame)

    @cached_property
    def prefix(self) -> Tensor:
        """Bool [B, K, T], True where the token is written autoregressively."""
        return self._step < self.switch[:, None, None]

    @cached_property
    def _step(self) -> Tensor:
        codebook, frame = (torch.arange(size, device=self.switch.device) for size in (self.codebooks, self.length))
        return codebook[:, None] + frame                                               # [K, T]

    def place(self, tokens: Tensor, special: int) -> Tensor:
        """What the transformer reads: tokens Long [B, K, T] -> Long [B, K, S], `special` where there is none."""
        codebook = torch.arange(self.codebooks, device=tokens.device)[:, None]
        delayed = self._column - 1 - codebook                                          # [K, S]
        frame = torch.where(self.causal[:, None], delayed, self.frame[:, None])        # [B, K, S]
        held = (frame >= 0) & (frame < self.length)
        return tokens.gather(-1, frame.clamp(0, self.length - 1)).masked_fill(~held, special)

    def realign(self, columns: Tensor) -> Tensor:
        """Predictions by column -> by token: [B, K, S, D] -> [B, K, T, D]; [B, S, D] holds one codebook's frames, those
        without a column repeat another -> [B, T, D]."""
        own = torch.arange(self.length, device=columns.device) + (self.switch - self.first_frame)[:, None]   # [B, T]
        if columns.dim() == 3:
            index = own
        else:
            index = torch.where(self.prefix, self._step, own[:, None])                 # [B, K, T]
        index = index.clamp(max=self.columns - 1)
        return columns.gather(-2, index[..., None].expand(*index.shape, columns.shape[-1]))

    def context(self, stage: int, width: int) -> Joint:
        """Attention at a stage.

        Args:
            stage: codebook that is predicted in parallel; the first sees everything.
            width: frames to either side that the others see; below 0 they see everything too.
        """
        column, frame = self._column, self.frame                                       # [1, S], [B, S]
        rows, keys = frame[:, :, None], frame[:, None, :]
        causal = self.causal[:, :, None] & (column[:, :, None] >= column[:, None, :])
        written, held = self.causal[:, None, :], (~self.causal & (frame < self.length))
        near, near_written = held[:, None, :], written
        if stage > 0 and width >= 0:
            near = near & ((rows - keys).abs() <= width)
            oldest = (column - self.codebooks).clamp(min=0)[:, None, :]
            newest = (column - 1).clamp(max=self.length - 1)[:, None, :]
            near_written = written & (oldest <= rows + width) & (newest >= rows - width) & (column > 0)[:, None, :]
        alone = torch.eye(self.columns, dtype=torch.bool, device=frame.device)
        parallel = torch.where(held[:, :, None], near | near_written, alone)
        return Joint(torch.where(self.causal[:, :, None], causal, parallel)[:, None])


def draw_switch(batch: int, length: int, share: tuple[float, float], generator: torch.Generator,
                parallel: float = 0.0) -> Tensor:
    """A switch per sample, uniform over the whole steps from `share[0]` to `share[1]` times T, both included.

    Args:
        batch: number of samples B.
        length: frames T.
        share: lowest and highest switch as shares of T. Nothing is drawn where they give the same step.
        generator: source of randomness; its device is that of the result.
        parallel: chance of a switch of 0 instead. A uniform switch is 0 in one of T samples, too seldom to learn what it
            is to have no prefix.
    Returns:
        Long [B].
    Raises:
        ValueError: if the shares are not 0 <= low <= high <= 1, or the chance is none.
    """
    check_switch(share, parallel)
    first, last = round(share[0] * length), round(share[1] * length)
    device = generator.device
    if first == last:
        switch = torch.full((batch,), first, device=device)
    else:
        switch = torch.randint(first, last + 1, (batch,), generator=generator, device=device)
    if parallel > 0:
        switch = switch.masked_fill(torch.rand(batch, generator=generator, device=device) < parallel, 0)
    return switch


def check_switch(share: tp.Sequence[float], parallel: float) -> None:
    """Raise ValueError unless `hybrid.switch` is a range within [0, 1] and `hybrid.parallel` a chance."""
    if len(share) != 2 or not 0 <= share[0] <= share[1] <= 1:
        raise ValueError(f"hybrid.switch={list(share)} must be the lowest and the highest share of a clip that is "
                         "autoregressive, such as [0.0, 1.0]")
    if not 0 <= parallel <= 1:
        raise ValueError(f"hybrid.parallel={parallel} is the share of samples without a prefix; give 0 to 1, such as 0.1")


@dataclass(frozen=True, eq=False)
class Question:
    """What a training step shows, and what it asks.

    Attributes:
        shown: Long [B, K, T], the special token where hidden.
        prompt: Bool [B, K, T], tokens to be predicted autoregressively.
        mask: Bool [B, T], frames of the stage to be predicted in parallel.
        stage: the codebook of `mask`.
    """
    shown: Tensor
    prompt: Tensor
    mask: Tensor
    stage: int

    @property
    def asked(self) -> Tensor:
        """Bool [B, K, T], all that is to be predicted."""
        asked = self.prompt.clone()
        asked[:, self.stage] |= self.mask
        return asked

    @property
    def counts(self) -> Tensor:
        """How many tokens are to be predicted in all, of them masked, and of them autoregressive: Float [3]."""
        return torch.stack([self.asked.sum(), self.mask.sum(), self.prompt.sum()]).float()

    def rows(self, which: slice) -> Question:
        """The question to some of the samples."""
        return Question(self.shown[which], self.prompt[which], self.mask[which], self.stage)


def ask(tokens: Tensor, valid: Tensor, layout: Layout, stage: int, rates: Tensor, span_len: int, special: int,
        generator: torch.Generator) -> Question:
    """Hide what a stage does not know yet; the prefix stays.

    Span tables are those of the frames that are left after the switch. A switch of 0 gives plain MAGNeT's masks.

    Args:
        tokens: Long [B, K, T].
        valid: Bool [B, K, T], False on padding.
        layout: where the prefix ends.
        stage: codebook to mask.
        rates: mask rates, float [B].
        span_len: frames per span.
        special: the mask token.
        generator: source of the spans.
    """
    free = valid & ~layout.prefix
    mask = stage_mask(rates, tokens.shape[-1], span_len, generator, free[:, stage])
    shown = tokens.masked_fill(hidden(mask, stage, tokens.shape[1]) & ~layout.prefix, special)
    return Question(shown, valid & layout.prefix, mask, stage)


def hybrid_loss(logits: Tensor, tokens: Tensor, question: Question, counts: Tensor | None = None
                ) -> tuple[Tensor, Tensor]:
    """One mean cross entropy over all tokens that are asked for, in nats.

    Args:
        logits: [B, K, T, card].
        tokens: Long [B, K, T].
        question: which tokens are asked for.
        counts: `Question.counts` of the whole batch, where these samples are part of a larger one; the results are then
            their shares of its means.
    Returns:
        The loss, and for reports the mean over the masked tokens alone; zero where there are none.
    """
    asked, masked_ones, _ = question.counts if counts is None else counts
    stage = question.stage
    loss = masked_cross_entropy(logits, tokens, question.asked, asked)
    with torch.no_grad():
        masked = masked_cross_entropy(logits[:, stage], tokens[:, stage], question.mask, masked_ones)
    return loss, masked


def prompt_part(loss: Tensor, masked: Tensor, counts: Tensor) -> Tensor:
    """The mean over the autoregressive tokens, of the means over all and over the masked ones; zero where there are none."""
    asked, masked_ones, written = counts
    total = loss.detach() * asked - masked * masked_ones
    return total / written.masked_fill(written == 0, 1) * (written > 0)
