"""`step.remask` and `step.fill` as one Triton kernel each.

Their contracts, and the PyTorch operations that they replace, are in `step`. Everything that differs between steps is read
through pointers, so that a captured CUDA graph can be replayed for any step. Given equal random numbers, the tokens are
those of `step` up to the rounding of floating-point operations.
"""
import typing as tp

import torch

from ..decoding.sampling import Sampler
from ..decoding.span_masker import KEEP, SpanRule
from .jit import block, warps
from .step import Branches, StageState, StepTables
from .triton_fill import fill_kernel
from .triton_remask import remask_kernel

_COMPARISONS = 2048 * 16    # Pairs of spans compared at a time; more do not fit the registers of 16 warps.


def remask(state: StageState, tables: StepTables, rule: SpanRule, mask_id: int) -> None:
    """Put the mask token on the least certain spans, in one kernel; see `step.remask`."""
    batch, length = state.codes.shape
    spans = length - rule.span_len + 1 if rule.overlapping else -(-length // rule.span_len)
    tile = max(min(_COMPARISONS // block(spans), 16), 2)
    remask_kernel[(batch,)](
        state.codes, state.known, state.masked, state.likelihood, tables.counts, tables.index, state.codes.stride(0),
        state.known.stride(0), state.masked.stride(0), state.likelihood.stride(0), batch, length, spans, mask_id,
        SPAN=rule.span_len, OVERLAPPING=rule.overlapping, BY_FRAME=rule.by_frame, LARGEST=rule.scoring == "max", KEEP=KEEP,
        FRAMES=block(length), SPANS=block(spans), TILE=tile, num_warps=warps(tile * block(spans)), enable_fp_fusion=False)


def fill(state: StageState, tables: StepTables, logits: torch.Tensor, branches: Branches,
         difference: tp.Optional[torch.Tensor], sampler: Sampler) -> None:
    """Choose tokens for the masked frames, in one kernel; see `step.fill`.

    Raises:
        ValueError: the sampler samples and `tables` has no random numbers.
    """
    batch, length = state.codes.shape
    uniforms, card = tables.uniforms, logits.shape[-1]
    if sampler.use_sampling and uniforms is None:
        raise ValueError("sampling requires random numbers, but uniforms is None; draw them with Sampler.uniforms")
    if branches == "reuse" and difference is None:
        raise ValueError("branches='reuse' requires the difference between the branches, but difference is None")
    fill_kernel[(length, batch)](
        state.codes, state.masked, state.likelihood, logits, difference if branches != "conditional" else None,
        tables.settings, uniforms, tables.index, tables.first_bad, state.codes.stride(0), state.masked.stride(0),
        state.likelihood.stride(0), logits.stride(0), logits.stride(1), batch, length, card,
        0 if uniforms is None else uniforms.shape[-1], min(sampler.top_k, card), sampler.top_p or float("inf"),
        BOTH=branches == "both", REUSE=branches == "reuse", WRITE=branches == "both" and difference is not None,
        SAMPLE=sampler.use_sampling, TRUNCATE=bool(sampler.top_k and not sampler.top_p), BLOCK=block(card),
        num_warps=warps(block(card)), enable_fp_fusion=False)
    tables.index.add_(1)
