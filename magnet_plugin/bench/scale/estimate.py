"""Estimate the memory, the time and the network traffic of one training step of a recipe on N GPUs."""
from __future__ import annotations

import typing as tp
from bisect import bisect
from dataclasses import dataclass, replace

from .costs import FLOAT, Step, flops, moved, stored
from .hardware import GPUS, HALVES, PRECISIONS, Assumptions, all_reduce, gather, nodes_of
from .recipes import Recipe


class Optimizer(tp.NamedTuple):
    """Per trained parameter."""
    states: int             # numbers stored
    moved: int              # bytes read and written by an update
    work: float             # temporary numbers


OPTIMIZERS = {"adamw": Optimizer(2, 84, 1), "adam": Optimizer(2, 76, 1), "dadam": Optimizer(3, 188, 0)}
CLIP, EMA, UNSCALE = 12, 20, 8          # bytes read and written per parameter
MOST = 1 << 14          # clips per GPU


@dataclass(frozen=True)
class Plan:
    """Where a recipe runs."""
    gpus: int
    gpu: str                # key of `hardware.GPUS`
    batch: int              # clips over all GPUs

    def __post_init__(self) -> None:
        nodes_of(self.gpus)
        if self.batch < 1 or self.batch % self.gpus:
            raise ValueError(f"--gpus {self.gpus} cannot share a batch of {self.batch} clips equally; set --batch to a "
                             f"multiple of {self.gpus}")

    @property
    def clips(self) -> int:
        """Clips of one GPU."""
        return self.batch // self.gpus


@dataclass(frozen=True)
class Estimate:
    """One step on one GPU of a plan."""
    plan: Plan
    memory: dict[str, float]        # bytes by purpose; they do not all exist at the same time
    peak: float                     # most bytes at a time
    fits: bool                      # with the assumed reserve
    most: int                       # clips per GPU that fit in one micro-batch
    accumulate: int                 # smallest optim.accumulate with which the plan fits; 0: none
    seconds: dict[str, float]       # of compute, memory traffic and exposed network traffic
    sent: float                     # bytes that one GPU sends

    @property
    def step(self) -> float:
        return sum(self.seconds.values())

    @property
    def bound(self) -> str:
        """What takes most of the step."""
        return max(self.seconds, key=lambda name: self.seconds[name])


def estimate(recipe: Recipe, plan: Plan, assumed: Assumptions) -> Estimate:
    """Estimate a step of `recipe` under `plan`.

    Raises:
        ValueError: if a setting is not supported; the message states what to set instead.
    """
    for name, value, known in (("optim.optimizer", recipe.optimizer, tuple(OPTIMIZERS)),
                               ("precision", recipe.precision, PRECISIONS)):
        if value not in known:
            raise ValueError(f"{name}={value} is not supported by the estimate; use {', '.join(known)}")
    if not 1 <= recipe.accumulate <= plan.clips:
        raise ValueError(f"optim.accumulate={recipe.accumulate} must be between 1 and the {plan.clips} clips of one GPU")
    if recipe.fsdp and recipe.accumulate > 1:
        raise ValueError("optim.accumulate above 1 is not supported by the estimate with FSDP; set optim.accumulate=1")
    limit = GPUS[plan.gpu].memory * (1 - assumed.reserve)

    def fits(clips: int, accumulate: int) -> bool:
        return memory(replace(recipe, accumulate=accumulate), clips, plan.gpus, assumed)[1] <= limit

    parts, peak = memory(recipe, plan.clips, plan.gpus, assumed)
    most = bisect(range(1, MOST + 1), False, key=lambda clips: not fits(clips, 1))
    splits = range(1, 2 if recipe.fsdp else plan.clips + 1)
    accumulate = next((split for split in splits if fits(plan.clips, split)), 0)
    return Estimate(plan, parts, peak, peak <= limit, most, accumulate, *times(recipe, plan, assumed))


def step_of(recipe: Recipe, clips: int, assumed: Assumptions) -> Step:
    """Return a micro-batch of `clips`. FSDP also rounds the residual stream to half precision, autocast does not."""
    half = recipe.precision in HALVES
    return Step(clips, assumed.text_tokens, 2 if half and recipe.fsdp else FLOAT, 2 if half else FLOAT)


def shard(recipe: Recipe, ranks: int) -> int:
    """Count the parameters of one rank; FSDP splits each unit evenly and pads it."""
    return sum(-(-unit // ranks) for unit in recipe.units) if recipe.fsdp else recipe.parameters


def memory(recipe: Recipe, clips: int, ranks: int, assumed: Assumptions) -> tuple[dict[str, float], float]:
    """Return the bytes of one rank by purpose, and their peak.

    The peak is the largest of several moments: the codec has finished before the transformer starts, gradients grow while
    activations are freed, and the optimizer runs after that.
    """
    own, optimizer = shard(recipe, ranks), OPTIMIZERS[recipe.optimizer]
    step = step_of(recipe, -(-clips // recipe.accumulate), assumed)
    kept = stored(recipe.shape, step)
    fixed = {"weights": FLOAT * own, "optimizer": FLOAT * optimizer.states * own,
             "EMA": FLOAT * own if recipe.ema_every else 0, "text encoder": recipe.text.held, "codec": recipe.codec.held}
    sizes = sorted(recipe.units, reverse=True)                  # full_shard holds a unit and the next one
    gathered = step.compute * sum(sizes[:2] if recipe.fsdp == "full_shard" else sizes) if recipe.fsdp else 0
    encoding = max(recipe.codec.peak, recipe.text.peak) * clips
    parts = {**fixed, "gradients": FLOAT * own, "activations": kept.layers, "logits": kept.logits,
             "weight copies": gathered or kept.weights, "codec activations": encoding}
    moments = [encoding, FLOAT * own * (1 + optimizer.work), *_backward(recipe, step, gathered, own)]
    return parts, sum(fixed.values()) + max(moments)


def _backward(recipe: Recipe, step: Step, gathered: float, own: int) -> list[float]:
    """Return the bytes at the start and at the end of the backward pass."""
    kept = stored(recipe.shape, step)
    if recipe.fsdp:                             # a unit's gradient is cast, reduced, and its shard kept
        unit = max(recipe.units) * (step.compute + recipe.reduce)
        return [kept.at_start - kept.weights + gathered, FLOAT * own + gathered + kept.at_end + unit]
    shape, whole = recipe.shape, FLOAT * recipe.parameters
    heads = FLOAT * shape.codebooks * shape.card * shape.dim                # zeros from `touch_all`
    last = FLOAT * (shape.layer_weights + shape.codebooks * (shape.card + 1) * shape.dim)
    before = whole if recipe.accumulate > 1 else 0                          # gradient of earlier micro-batches
    return [before + kept.at_start + heads, before + max(whole - last + kept.at_end, 0), whole]


def times(recipe: Recipe, plan: Plan, assumed: Assumptions) -> tuple[dict[str, float], float]:
    """Return the seconds by purpose, and the bytes that one GPU sends."""
    step, clips, gpu = step_of(recipe, plan.clips, assumed), plan.clips, GPUS[plan.gpu]
    rate = assumed.efficiency * (gpu.half if recipe.precision in HALVES else gpu.float32)
    bandwidth = assumed.bandwidth * gpu.bandwidth
    compute = [count / rate for count in flops(recipe.shape, step)]                 # forward and backward
    traffic = [count / bandwidth for count in moved(recipe.shape, step)]
    text, codec = recipe.text, recipe.codec
    encoding = clips / assumed.efficiency * (text.flops / gpu.float32 + codec.flops / (gpu.half / 2))
    encoding += codec.recurrent * assumed.recurrence
    update = shard(recipe, plan.gpus) * (OPTIMIZERS[recipe.optimizer].moved + CLIP * recipe.clips_gradients
                                         + (EMA / recipe.ema_every if recipe.ema_every else 0)
                                         + UNSCALE * (recipe.precision == "float16"))
    if recipe.fsdp:                             # gradients are cast before they are reduced
        update += recipe.parameters * (step.compute + recipe.reduce)
    sent, exposed = network(recipe, plan, step.compute, assumed.link, *(a + b for a, b in zip(compute, traffic)))
    return {"compute": encoding + sum(compute), "network": exposed,
            "memory": sum(traffic) + (clips * (text.moved + codec.moved) + update) / bandwidth}, sent


def network(recipe: Recipe, plan: Plan, compute: int, share: float, forward: float, backward: float
            ) -> tuple[float, float]:
    """Return the bytes that one GPU sends, and the seconds of this that do not overlap with the two passes.

    `compute`: bytes of a gathered weight; `share`: of the links' bandwidth; `forward`, `backward`: seconds of the passes.
    """
    ranks, gpu, size, units = plan.gpus, GPUS[plan.gpu], recipe.parameters, len(recipe.units)
    if not recipe.fsdp:                         # flashy reduces parameter by parameter
        reduced = all_reduce(FLOAT * size, ranks, recipe.tensors)
        overlap = backward if recipe.eager and recipe.accumulate == 1 else 0.0
        return reduced.bytes, max(0.0, reduced.seconds(gpu, share) - overlap)
    again = recipe.fsdp == "full_shard"         # gathers again in the backward pass
    gathered = gather(compute * size, ranks, units)
    reduced = gather((recipe.reduce + again * compute) * size, ranks, units * (1 + again))
    exposed = max(0.0, gathered.seconds(gpu, share) - forward) + max(0.0, reduced.seconds(gpu, share) - backward)
    return gathered.bytes + reduced.bytes, exposed
