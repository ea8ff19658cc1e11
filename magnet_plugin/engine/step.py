"""A decoding step in place, on buffers of fixed shapes: what a CUDA graph can capture.

It computes what `decoding.magnet.decode_step` computes without a rescorer, for all frames instead of the masked ones. What
differs between the steps of a stage (counts, temperature, guidance scale, random numbers) is read from tables on the device
at the position `index`, which the step advances. Nothing in it reads the device from the host.

`remask` and `fill` use PyTorch's operations; on CUDA, `triton_step` does the same in one kernel each (see `kernels`).
"""
import dataclasses
import typing as tp

import torch

from ..decoding.sampling import Sampler, rounds
from ..decoding.span_masker import SpanRule
from ..modules.guidance import Branches, guide


@dataclasses.dataclass(frozen=True)
class StepTables:
    """What differs between the S steps of a clip, on the device.

    Attributes:
        counts: number of frames (or of spans of the grid) to mask, Long [S, B].
        settings: temperature and guidance scale, float32 [S, 2].
        uniforms: random numbers, float32 [S, B, T, rounds]; None if nothing is sampled.
        index: the step, Long [1].
        first_bad: the first step whose logits were not finite, Long [1]; S if there is none.
    """
    counts: torch.Tensor
    settings: torch.Tensor
    uniforms: tp.Optional[torch.Tensor]
    index: torch.Tensor
    first_bad: torch.Tensor

    def current(self, table: torch.Tensor) -> torch.Tensor:
        """Return the row of a table for the present step."""
        return table.index_select(0, self.index)[0]

    def draw(self, sampler: Sampler) -> None:
        """Draw the random numbers of all steps."""
        if self.uniforms is not None:
            steps, batch, count, _ = self.uniforms.shape
            drawn = tp.cast(torch.Tensor, sampler.uniforms(batch, steps, count, device=self.uniforms.device))
            self.uniforms.copy_(drawn.transpose(0, 1))

    def finish_step(self, finite: torch.Tensor) -> None:
        """Advance `index`; record the step in `first_bad` if `finite` (Bool []) is False and no earlier step is recorded."""
        here = torch.where(finite, self.first_bad, self.index)
        torch.minimum(self.first_bad, here, out=self.first_bad)
        self.index.add_(1)


def empty_uniforms(sampler: Sampler, steps: int, batch: int, count: int, device: torch.device) -> tp.Optional[torch.Tensor]:
    """Allocate `StepTables.uniforms` for `count` tokens of each sample; None if nothing is sampled."""
    return torch.zeros(steps, batch, count, rounds(sampler.top_p), device=device) if sampler.use_sampling else None


@dataclasses.dataclass(frozen=True)
class StageState:
    """The codebook that is being decoded; steps change it in place.

    Attributes:
        codes: its tokens, a view of the clip's, Long [B, T] with any stride between rows.
        known: frames to keep, Bool [B, T].
        masked: frames that hold the mask token, or were filled in last, Bool [B, T].
        likelihood: probability of each frame's token, float32 [B, T].
    """
    codes: torch.Tensor
    known: torch.Tensor
    masked: torch.Tensor
    likelihood: torch.Tensor


def remask(state: StageState, tables: StepTables, rule: SpanRule, mask_id: int) -> None:
    """Put the mask token on the least certain spans; updates `codes` and `masked`."""
    count = tables.current(tables.counts)
    chosen = rule.choose(state.likelihood, state.masked, count) & ~state.known
    state.codes.masked_fill_(chosen, mask_id)
    torch.eq(state.codes, mask_id, out=state.masked)


def fill(state: StageState, tables: StepTables, logits: torch.Tensor, branches: Branches,
         difference: tp.Optional[torch.Tensor], sampler: Sampler) -> None:
    """Choose tokens for the masked frames; updates `codes`, `likelihood` and `first_bad`, and advances `index`.

    Args:
        state: the codebook.
        tables: settings of the steps.
        logits: [B, T, card], with `branches="both"` [2 B, T, card], the unconditional rows last; any float type.
        branches: what `logits` holds.
        difference: conditional minus unconditional logits, float32 [B, T, card]: written if the branches are both and it is
            given, read with `branches="reuse"`.
        sampler: how tokens are chosen; its source of randomness is not used.
    """
    temperature, scale = tables.current(tables.settings).unbind()
    logits = guided(logits, branches, scale, difference)
    probs = torch.softmax(logits / temperature, dim=-1)
    uniforms = None if tables.uniforms is None else tables.current(tables.uniforms)
    sampled = sampler.sample(logits, probs, uniforms)
    state.codes.copy_(torch.where(state.masked, sampled, state.codes))
    state.likelihood.copy_(probs.gather(-1, sampled[..., None])[..., 0])
    tables.finish_step(logits.isfinite().all())


def guided(logits: torch.Tensor, branches: Branches, scale: torch.Tensor, difference: tp.Optional[torch.Tensor]
           ) -> torch.Tensor:
    """Apply guidance as `fill` describes it; returns float32 [B, T, card]."""
    logits = logits.float()
    if branches == "conditional":
        return logits
    if branches == "reuse":
        assert difference is not None
        return logits + (scale - 1) * difference
    conditional, unconditional = logits.chunk(2)
    if difference is not None:
        torch.sub(conditional, unconditional, out=difference)
    return guide(conditional, unconditional, tp.cast(float, scale))
