"""Training targets and loss of Hybrid-MAGNeT: next-token prediction before the switch, masked prediction after it."""
from __future__ import annotations

import typing as tp
from dataclasses import dataclass

import torch
from torch import Tensor

from .hybrid_layout import Layout
from .losses import masked_cross_entropy
from .masking import hidden, stage_mask


def draw_switch(batch: int, length: int, switch_range: tuple[float, float], generator: torch.Generator,
                parallel: float = 0.0) -> Tensor:
    """Draw a switch for each sample, uniformly from `low * T` to `high * T`, both included.

    Args:
        batch: number of samples B.
        length: number of frames T.
        switch_range: low and high, fractions of T. If both give the same step, nothing is drawn.
        generator: source of randomness; its device is that of the result.
        parallel: probability of a switch of 0 instead. A uniform switch is 0 for one of T samples, too rarely for the model
            to learn decoding without a prefix.
    Returns:
        Long [B].
    Raises:
        ValueError: not 0 <= low <= high <= 1, or `parallel` is not a probability.
    """
    check_switch(switch_range, parallel)
    first, last = round(switch_range[0] * length), round(switch_range[1] * length)
    device = generator.device
    if first == last:
        switch = torch.full((batch,), first, device=device)
    else:
        switch = torch.randint(first, last + 1, (batch,), generator=generator, device=device)
    if parallel > 0:
        switch = switch.masked_fill(torch.rand(batch, generator=generator, device=device) < parallel, 0)
    return switch


def check_switch(switch_range: tp.Sequence[float], parallel: float) -> None:
    """Raise ValueError unless `hybrid.switch` is a range within [0, 1] and `hybrid.parallel` a probability."""
    if len(switch_range) != 2 or not 0 <= switch_range[0] <= switch_range[1] <= 1:
        raise ValueError(f"hybrid.switch={list(switch_range)} must be the lowest and the highest autoregressive fraction of "
                         "a clip, such as [0.0, 1.0]")
    if not 0 <= parallel <= 1:
        raise ValueError(f"hybrid.parallel={parallel} is the fraction of samples without a prefix; set it to a value "
                         "from 0 to 1, such as 0.1")


@dataclass(frozen=True, eq=False)
class HybridTargets:
    """Inputs and targets of a training step.

    Attributes:
        inputs: tokens with the special token where hidden, Long [B, K, T].
        prompt: targets of autoregressive prediction, Bool [B, K, T].
        mask: frames of the stage that are targets of parallel prediction, Bool [B, T].
        stage: the codebook of `mask`.
    """
    inputs: Tensor
    prompt: Tensor
    mask: Tensor
    stage: int

    @property
    def all(self) -> Tensor:
        """All targets, Bool [B, K, T]."""
        targets = self.prompt.clone()
        targets[:, self.stage] |= self.mask
        return targets

    @property
    def counts(self) -> Tensor:
        """Number of all targets, of parallel and of autoregressive ones: Float [3]."""
        return torch.stack([self.all.sum(), self.mask.sum(), self.prompt.sum()]).float()

    def rows(self, which: slice) -> HybridTargets:
        """Select some of the samples."""
        return HybridTargets(self.inputs[which], self.prompt[which], self.mask[which], self.stage)


def choose_targets(tokens: Tensor, valid: Tensor, layout: Layout, stage: int, rates: Tensor, span_len: int, special: int,
                   generator: torch.Generator) -> HybridTargets:
    """Mask spans after the switch and hide what the stage does not know yet; the prefix stays visible.

    The number of spans follows from the frames after the switch. A switch of 0 gives the masks of a plain MAGNeT.

    Args:
        tokens: Long [B, K, T].
        valid: Bool [B, K, T], False on padding.
        layout: where the prefix of each sample ends.
        stage: codebook to mask.
        rates: mask rates, float [B].
        span_len: frames per span.
        special: the mask token.
        generator: source of the spans.
    """
    free = valid & ~layout.prefix
    mask = stage_mask(rates, tokens.shape[-1], span_len, generator, free[:, stage])
    inputs = tokens.masked_fill(hidden(mask, stage, tokens.shape[1]) & ~layout.prefix, special)
    return HybridTargets(inputs, valid & layout.prefix, mask, stage)


def hybrid_loss(logits: Tensor, tokens: Tensor, targets: HybridTargets, counts: Tensor | None = None
                ) -> tuple[Tensor, Tensor]:
    """Mean cross entropy over all targets, in nats.

    Args:
        logits: [B, K, T, card].
        tokens: Long [B, K, T].
        targets: which tokens are targets.
        counts: `HybridTargets.counts` of the whole batch if these samples are only a part of it; the results are then
            their contributions to its means.
    Returns:
        The loss, and for reports the mean over the masked targets; zero if there are none.
    """
    everything, parallel, _ = targets.counts if counts is None else counts
    stage = targets.stage
    loss = masked_cross_entropy(logits, tokens, targets.all, everything)
    with torch.no_grad():
        masked = masked_cross_entropy(logits[:, stage], tokens[:, stage], targets.mask, parallel)
    return loss, masked


def prompt_loss(loss: Tensor, masked: Tensor, counts: Tensor) -> Tensor:
    """Mean over the autoregressive targets, from the means over all and over masked targets; zero if there are none."""
    everything, parallel, autoregressive = counts
    total = loss.detach() * everything - masked * parallel
    return total / autoregressive.masked_fill(autoregressive == 0, 1) * (autoregressive > 0)
