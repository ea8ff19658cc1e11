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
from magnet_plugin.bench.scale.costs import FLOAT, TILE, Shape, Step
from magnet_plugin.bench.settings import SIZES, Size
from magnet_plugin.distributed.reduction import touch_all
from magnet_plugin.modules import attention
from magnet_plugin.modules.losses import masked_cross_entropy
from tests.helpers.small_models import MagnetLMModel

from .meter import Meter, Saved

WORDS = len(baselines.CAPTION.split())
PRECISIONS = {"float32": (4, 4), "autocast": (4, 2), "bfloat16": (2, 2)}       # bytes: residual stream, products


class Case(tp.NamedTuple):
    size: Size
    batch: int
    frames: int
    precision: str
    checkpointing: bool = False

    @property
    def restricted(self) -> int:
        """The stage whose attention the estimate of the memory is for: in float32, one with restricted attention."""
        return int(self.precision == "float32")


CASES = [Case(SIZES["tiny"], 4, 248, "float32"), Case(SIZES["tiny"], 4, 250, "autocast"),
         Case(Size(256, 4, 4), 2, 300, "bfloat16"), Case(Size(192, 8, 6), 2, 200, "float32", True)]


def shape_of(size: Size, frames: int, checkpointing: bool = False) -> Shape:
    """The shape of a model that `baselines.build` makes."""
    return Shape(size.dim, size.heads, size.layers, 4 * size.dim, baselines.CODEBOOKS, baselines.CARD, frames, 5, 16, True,
                 checkpointing)


def passes(case: Case) -> tuple[tp.Any, tp.Callable[[int], torch.Tensor]]:
    """A model, and its forward pass of a stage up to the loss that the solver differentiates."""
    model = baselines.build(MagnetLMModel, case.size, case.frames, torch.device("cpu"), torch.float32).train()
    if case.precision == "bfloat16":
        model.to(torch.bfloat16)
    model.transformer.checkpointing = "torch" if case.checkpointing else "none"
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(baselines.CARD, (case.batch, baselines.CODEBOOKS, case.frames), generator=generator)
    mask = torch.rand(case.batch, case.frames, generator=generator) < 0.5
    provider, texts = model.condition_provider, baselines.captions(case.batch)

    def run(stage: int) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16) if case.precision == "autocast" else contextlib.nullcontext():
            logits = model.stage_logits(tokens, provider(provider.tokenize(texts)), stage)
            return masked_cross_entropy(logits, tokens[:, stage], mask, mask.sum())

    return model, run


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"dim{case.size.dim}-{case.precision}")
def test_formulas_match_the_model(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    magnet_plugin.register()
    monkeypatch.setattr(attention, "_trains_faster_in_float32", lambda q: False)       # The formulas are for GPUs.
    shape, step = shape_of(case.size, case.frames, case.checkpointing), Step(case.batch, WORDS, *PRECISIONS[case.precision])
    flops, stored, moved = costs.flops(shape, step), costs.stored(shape, step), costs.moved(shape, step)
    above = 0.04 if case.restricted else 0.0        # windows of keys and values: views on CPU, copies on CUDA
    model, run = passes(case)
    with Saved(model.parameters()) as saved:
        loss = run(case.restricted)
    assert 0.99 * saved.bytes < stored.total < (1.01 + above) * saved.bytes
    del loss
    peaks = {}
    for stage in {0, case.restricted}:
        model.zero_grad()
        with Meter() as meter:
            touch_all(run(stage), model.linears.parameters()).backward()
        peaks[stage] = meter.peak
        if stage == 0:
            # The sum of embeddings and positions is float32 even in a bfloat16 model, which counts in one this small.
            assert sum(moved) == pytest.approx(meter.moved, rel=0.12)
    size = step.residual
    whole = size * sum(p.numel() for p in model.parameters())
    heads = size * shape.codebooks * shape.card * shape.dim
    last = size * (shape.layer_weights + shape.codebooks * (shape.card + 1) * shape.dim)
    peak = max(stored.at_start + heads, whole - last + stored.at_end, whole)
    assert 0.98 * peaks[case.restricted] < peak < (1.02 + above) * peaks[case.restricted]
    model.zero_grad()
    # The counter only sees attention as plain products, which keep the scores that fused kernels recompute.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = run(0)
        forward = counter.get_total_flops()
        loss.backward()
    recomputed = 0.5 * shape.layers * costs.attention_flops(shape, step)
    assert flops.forward == pytest.approx(forward, rel=0.001)
    assert flops.backward - recomputed == pytest.approx(counter.get_total_flops() - forward, rel=0.02)


def test_half_precision_counts_the_tiles_that_restricted_attention_reaches() -> None:
    shape = shape_of(SIZES["tiny"], 1500)
    frame = torch.arange(12 * TILE)
    near = (frame[:, None] - frame).abs() <= shape.context
    tiles = int(near.view(12, TILE, 12, TILE).any(3).any(1).sum())
    everything, half = 1500 ** 2, Step(1, 8, 4, 2)
    restricted = (shape.codebooks * costs.pairs(shape, half) - everything) / (shape.codebooks - 1)
    assert 0.9 * tiles * TILE ** 2 < restricted < 1.1 * tiles * TILE ** 2 < everything
    assert costs.pairs(shape, Step(1, 8, 4, 4)) == everything, "float32 counts all frames"
    assert costs.pairs(dataclasses.replace(shape, context=-1), half) == everything


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
