"""`bench.scale.costs` compared with what torch counts on the real model."""
import contextlib
import dataclasses
import typing as tp

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import magnet_plugin
from magnet_plugin.bench import baselines
from magnet_plugin.bench.scale import costs, estimate
from magnet_plugin.bench.scale.costs import FLOAT, Precision, Shape, Step
from magnet_plugin.bench.settings import SIZES, Size
from magnet_plugin.distributed.reduction import touch_all
from magnet_plugin.modules.losses import masked_cross_entropy
from tests.helpers.small_models import MagnetLMModel

from .meter import Meter, Saved

WORDS = len(baselines.CAPTION.split())
PRECISIONS = {"float32": Precision(4, 4), "autocast": Precision(4, 2), "bfloat16": Precision(2, 2)}


class Case(tp.NamedTuple):
    size: Size
    batch: int
    frames: int
    precision: str
    stage: int
    checkpointing: bool = False


CASES = [Case(SIZES["tiny"], 4, 248, "float32", 0), Case(SIZES["tiny"], 4, 250, "autocast", 1),
         Case(Size(64, 2, 2), 4, 100, "autocast", 0), Case(Size(256, 4, 4), 2, 300, "bfloat16", 0),
         Case(Size(192, 8, 6), 2, 200, "float32", 1, True)]


def shape_of(size: Size, frames: int, checkpointing: bool = False) -> Shape:
    """The shape of a model that `baselines.build` makes."""
    return Shape(size.dim, size.heads, size.layers, 4 * size.dim, baselines.CODEBOOKS, baselines.CARD, frames, 5, 16, True,
                 checkpointing)


def passes(case: Case) -> tuple[tp.Any, tp.Callable[[], torch.Tensor]]:
    """A model, and its forward pass up to the loss that the solver differentiates."""
    model = baselines.build(MagnetLMModel, case.size, case.frames, torch.device("cpu"), torch.float32).train()
    if case.precision == "bfloat16":
        model.to(torch.bfloat16)
    model.transformer.checkpointing = "torch" if case.checkpointing else "none"
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(baselines.CARD, (case.batch, baselines.CODEBOOKS, case.frames), generator=generator)
    mask = torch.rand(case.batch, case.frames, generator=generator) < 0.5
    provider, texts = model.condition_provider, baselines.captions(case.batch)

    def run() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16) if case.precision == "autocast" else contextlib.nullcontext():
            logits = model.stage_logits(tokens, provider(provider.tokenize(texts)), case.stage)
            return masked_cross_entropy(logits, tokens[:, case.stage], mask, mask.sum())

    return model, run


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"dim{case.size.dim}-{case.precision}-{case.stage}")
def test_formulas_match_the_model(case: Case) -> None:
    magnet_plugin.register()
    shape, step = shape_of(case.size, case.frames, case.checkpointing), Step(case.batch, WORDS, case.stage)
    precision = PRECISIONS[case.precision]
    flops, stored = costs.flops(shape, step), costs.stored(shape, step, precision)
    moved = costs.moved(shape, step, precision)
    model, run = passes(case)
    with Saved(model.parameters()) as saved:
        loss = run()
    assert stored.total == pytest.approx(saved.bytes, rel=0.01)
    del loss
    model.zero_grad()
    with Meter() as meter:
        touch_all(run(), model.linears.parameters()).backward()
    assert sum(moved) == pytest.approx(meter.moved, rel=0.1)
    size = precision.residual
    whole = size * sum(p.numel() for p in model.parameters())
    heads = size * shape.codebooks * shape.card * shape.dim
    last = size * (shape.layer_weights + shape.codebooks * (shape.card + 1) * shape.dim)
    peak = max(stored.at_start + heads, whole - last + stored.at_end, whole)
    assert peak == pytest.approx(meter.peak, rel=0.02)
    model.zero_grad()
    # The counter only sees attention as plain products, which keep the scores that fused kernels recompute.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = run()
        forward = counter.get_total_flops()
        loss.backward()
    recomputed = 0.5 * shape.layers * costs.attention_flops(shape, step)
    assert flops.forward == pytest.approx(forward, rel=0.001)
    assert flops.backward - recomputed == pytest.approx(counter.get_total_flops() - forward, rel=0.02)


def test_restricted_attention_computes_fewer_pairs() -> None:
    shape = shape_of(SIZES["tiny"], 1500)
    pairs = {flash: costs.pairs(shape, Step(1, 8, 1, flash)) for flash in (False, True)}
    assert 1500 * 11 < pairs[False] < pairs[True] < 1500 ** 2
    assert costs.pairs(shape, Step(1, 8, 0, True)) == 1500 ** 2
    unrestricted = dataclasses.replace(shape, context=-1)
    assert costs.pairs(unrestricted, Step(1, 8, 1)) == costs.pairs(unrestricted, Step(1, 8, 1, True)) == 1500 ** 2
    aligned = costs.windows(shape, Step(1, 8, 1, cuda=True))
    assert aligned is not None and aligned.keys % 8 == 0 and aligned.keys >= aligned.queries + 10


@pytest.mark.parametrize("name", estimate.OPTIMIZERS)
def test_memory_and_traffic_of_an_optimizer(name: str) -> None:
    from audiocraft.optim.dadam import DAdaptAdam
    parameters = [torch.nn.Parameter(torch.randn(100, 100)) for _ in range(5)]
    optimizer: tp.Any = {"adamw": lambda: torch.optim.AdamW(parameters, foreach=True),
                         "adam": lambda: torch.optim.Adam(parameters, foreach=True),
                         "dadam": lambda: DAdaptAdam(parameters, lr=1, weight_decay=0.1)}[name]()
    meter = Meter()
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    with meter:
        optimizer.step()
    expected, count = estimate.OPTIMIZERS[name], sum(p.numel() for p in parameters)
    assert meter.moved == pytest.approx(expected.moved * count, rel=0.01)
    assert meter.peak <= max(expected.work, FLOAT / len(parameters)) * FLOAT * count + 1000
    with Meter() as meter:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
    assert meter.moved == pytest.approx(estimate.CLIP * count, rel=0.01)
