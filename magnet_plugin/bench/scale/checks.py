"""The formulas beside what torch counts on the real model, at sizes that a processor bears; no clock is read."""
from __future__ import annotations

import contextlib
import dataclasses
import typing as tp

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ...distributed.reduction import touch_all
from ...models.conditioners import words_of
from ...modules.losses import masked_cross_entropy
from .. import peers
from .costs import Kernel, Precision, Shape, Step, flops, kept, moved
from .meter import Meter, Saved

TEXT_DIM = 16                   # of the words that `peers.build` puts in T5's place
WORDS = len(words_of(peers.CAPTION))


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and a batch.

    Attributes:
        precision: `float32`, `autocast` to bfloat16, or `bfloat16` throughout, as FSDP has it.
        stage: 0 attends to all frames, 1 to the band.
    """
    name: str
    size: peers.Size
    batch: int
    frames: int
    precision: str
    stage: int
    checkpointing: bool = False


TINY, WIDE, DEEP = peers.SIZES["tiny"], peers.Size(256, 4, 4), peers.Size(192, 8, 6)
CASES = [Case("tiny", TINY, 4, 248, "float32", 0), Case("tiny", TINY, 4, 248, "float32", 1),
         Case("tiny", TINY, 4, 250, "autocast", 1), Case("xsmall", peers.Size(64, 2, 2), 4, 100, "autocast", 0),
         Case("dim 256", WIDE, 2, 300, "bfloat16", 0), Case("dim 192, 8 layers", DEEP, 2, 200, "float32", 1, True)]


def shape_of(size: peers.Size, frames: int, checkpointing: bool = False) -> Shape:
    """The shape of a model that `peers.build` makes."""
    return Shape(size.dim, size.heads, size.layers, 4 * size.dim, peers.CODEBOOKS, peers.CARD, frames, 5, TEXT_DIM, True,
                 checkpointing)


def count(case: Case) -> dict[str, tuple[float, float]]:
    """By name: computed, and counted in one forward and backward pass.

    FLOPs are counted with attention by plain matrix products, as the counter sees no others; its backward pass keeps the
    scores, which fused kernels compute again.
    """
    shape = shape_of(case.size, case.frames, case.checkpointing)
    precision = {"float32": Precision(4, 4), "autocast": Precision(4, 2), "bfloat16": Precision(2, 2)}[case.precision]
    banded: Kernel = "blocked" if case.stage else "flash"
    step = Step(case.batch, WORDS, case.stage, banded)
    keeps, moves = kept(shape, step, precision), moved(shape, step, precision)
    products = flops(shape, step if case.stage else dataclasses.replace(step, kernel="dense"))
    model, run, backward = _passes(case)
    size = precision.residual
    heads, whole = size * shape.codebooks * shape.card * shape.dim, size * sum(p.numel() for p in model.parameters())
    late = size * (shape.layer_weights + shape.codebooks * (shape.card + 1) * shape.dim)
    found: dict[str, tuple[float, float]] = {}
    with Saved(model.parameters()) as saved:
        loss = run()
    found["kept for the backward pass, bytes"] = keeps.saved, saved.bytes
    del loss
    model.zero_grad()
    with Meter() as meter:
        loss = run()
        ahead, kernels = meter.moved, meter.kernels
        backward(loss)
    peak = max(keeps.first + heads, whole - late + keeps.last, whole)
    found["most at a time with gradients, bytes"] = peak, meter.peak
    found["moved by other operations, bytes"] = moves.forward + moves.backward, meter.moved
    found["kernels"] = moves.kernels_forward + moves.kernels_backward, meter.kernels
    assert ahead and kernels, "the meter saw nothing"
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = run()
        there = counter.get_total_flops()
        loss.backward()
    return {"FLOPs forward": (products.forward, there),
            "FLOPs backward": (products.backward, counter.get_total_flops() - there), **found}


def _passes(case: Case) -> tuple[tp.Any, tp.Callable[[], torch.Tensor], tp.Callable[[torch.Tensor], None]]:
    """Model, forward pass to the loss, and backward pass as the solver has it."""
    from ...models.lm_magnet import MagnetLMModel
    model = peers.build(MagnetLMModel, case.size, case.frames, torch.device("cpu"), torch.float32).train()
    if case.precision == "bfloat16":
        model.to(torch.bfloat16)
    model.transformer.checkpointing = "torch" if case.checkpointing else "none"
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(peers.CARD, (case.batch, peers.CODEBOOKS, case.frames), generator=generator)
    mask = torch.rand(case.batch, case.frames, generator=generator) < 0.5
    provider, texts = model.condition_provider, peers.captions(case.batch)

    def autocast() -> tp.ContextManager:
        return torch.autocast("cpu", torch.bfloat16) if case.precision == "autocast" else contextlib.nullcontext()

    def run() -> torch.Tensor:
        with autocast():
            logits = model.stage_logits(tokens, provider(provider.tokenize(texts)), case.stage)
            return masked_cross_entropy(logits, tokens[:, case.stage], mask, mask.sum())

    return model, run, lambda loss: touch_all(loss, model.linears.parameters()).backward()


