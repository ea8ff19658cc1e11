"""Training masks: which frames of one codebook are targets, and what the model's inputs are (sections 3.1 and 3.2).

Each training step picks one codebook, the stage. Codebooks below it are visible, those above it are hidden, and some spans
of the stage itself are masked; these are the targets.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .spans import dilate, num_starts


def stage_mask(rates: Tensor, seq_len: int, span_len: int, generator: torch.Generator | None = None,
               valid: Tensor | None = None) -> Tensor:
    """Draw the masked frames of the stage, with one mask rate per sample.

    Span starts are drawn without replacement from the frames that may be masked. Their number follows from the rate and
    the number of those frames by appendix C. A sample with any such frame has at least one target.

    Args:
        rates: mask rates within [0, 1], float [B]; the mask is on their device.
        seq_len: frames T.
        span_len: frames per span, at least 1; spans may overlap and are cut at the ends.
        generator: the only source of randomness; None uses torch's default generator. A CPU generator works for any
            device and gives the same masks on all of them.
        valid: frames that may be masked, Bool [B, T], consecutive in each sample: the clip without its padding, or the
            part after a hybrid model's switch. None means all.
    Returns:
        Bool [B, T], True where the frame is a target; never True outside of `valid`.
    Raises:
        ValueError: if the shapes do not fit or `span_len` is below 1.
    """
    if rates.dim() != 1:
        raise ValueError(f"rates holds one mask rate per sample and must be [B], got {tuple(rates.shape)}")
    shape = (len(rates), seq_len)
    if valid is not None and valid.shape != shape:
        raise ValueError(f"valid must be [B, T] = {shape}, got {tuple(valid.shape)}")
    source = rates.device if generator is None else generator.device
    order = torch.rand(shape, generator=generator, device=source).to(rates.device)  # [B, T]
    count: int | Tensor = seq_len
    if valid is not None:
        order = order.masked_fill(~valid, 2.0)  # After every draw from [0, 1).
        count = valid.sum(-1)
    starts = num_starts(rates, count, span_len, max_len=seq_len)  # [B]
    rank = order.argsort(-1).argsort(-1)  # Unlike a threshold, ranks keep the number exact if draws are equal.
    mask = dilate(rank < starts.unsqueeze(-1), span_len)
    return mask if valid is None else mask & valid


def hidden(mask: Tensor, stage: int, num_codebooks: int) -> Tensor:
    """Mark what the model must not see: the stage's masked frames and all codebooks above the stage.

    Args:
        mask: masked frames of the stage, Bool [B, T].
        stage: the codebook that is trained, 0 <= stage < K.
        num_codebooks: K.
    Returns:
        Bool [B, K, T].
    Raises:
        ValueError: if there is no such stage.
    """
    if not 0 <= stage < num_codebooks:
        raise ValueError(f"stage numbers a codebook from 0 to {num_codebooks - 1}, got {stage}")
    codebook = torch.arange(num_codebooks, device=mask.device).view(1, -1, 1)  # [1, K, 1]
    return (codebook > stage) | ((codebook == stage) & mask.unsqueeze(1))


def corrupt(tokens: Tensor, stage: int, mask: Tensor, mask_id: int) -> Tensor:
    """Build the model's inputs: `tokens` with the mask token wherever `hidden` is True.

    Args:
        tokens: codes, Long [B, K, T].
        stage: the codebook that is trained.
        mask: masked frames of the stage, Bool [B, T].
        mask_id: the mask token (its id is the codebooks' cardinality).
    Returns:
        Long [B, K, T], a new tensor.
    Raises:
        ValueError: if there is no such stage or the shapes do not fit.
    """
    batch, num_codebooks, seq_len = tokens.shape
    if mask.shape != (batch, seq_len):
        raise ValueError(f"mask must be [B, T] = {(batch, seq_len)}, got {tuple(mask.shape)}")
    return tokens.masked_fill(hidden(mask, stage, num_codebooks), mask_id)
