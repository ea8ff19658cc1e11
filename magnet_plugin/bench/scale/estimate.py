"""Estimate the memory, the time and the network traffic of one training step of a recipe on N GPUs."""
from __future__ import annotations

import typing as tp
from bisect import bisect
from dataclasses import dataclass, replace

from .costs import FLOAT, Passes, Precision, Step, Stored, flops, moved, stored
from .hardware import GPU, HALVES, Assumptions, Traffic, all_reduce, gather, get_gpu, nodes_of, total
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
            raise ValueError(f"--batch {self.batch} (dataset.batch_size) is not divisible by --gpus {self.gpus}; "
                             f"set it to a multiple of {self.gpus}")

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
    traffic: Traffic
    network: float                  # seconds of the traffic, exposed or not
    peak_compute: float             # seconds of the transformer's matrix products at the GPU's peak

    @property
    def step(self) -> float:
        return sum(self.seconds.values())

    @property
    def utilization(self) -> float:
        """Share of the GPU's peak FLOP/s that the transformer's matrix products reach over the step."""
        return self.peak_compute / self.step

    @property
    def bound(self) -> str:
        """What takes most of the step."""
        return max(self.seconds, key=lambda name: self.seconds[name])


def estimate(recipe: Recipe, plan: Plan, assumed: Assumptions) -> Estimate:
    """Estimate a step of `recipe` under `plan`.

    Raises:
        ValueError: if a setting is not supported; the message states what to set instead.
    """
    gpu = get_gpu(plan.gpu, recipe.precision)
    if recipe.optimizer not in OPTIMIZERS:
        raise ValueError(f"optim.optimizer={recipe.optimizer} is not supported by the estimate; use {', '.join(OPTIMIZERS)}")
    if not 1 <= recipe.accumulate <= plan.clips:
        raise ValueError(f"optim.accumulate={recipe.accumulate} must be between 1 and the {plan.clips} clips of one GPU")
    if recipe.fsdp and recipe.accumulate > 1:
        raise ValueError("optim.accumulate above 1 is not supported by the estimate with FSDP; set optim.accumulate=1")
    limit = gpu.memory * (1 - assumed.reserve)

    def fits(clips: int, accumulate: int) -> bool:
        return memory(replace(recipe, accumulate=accumulate), clips, plan.gpus, gpu, assumed)[1] <= limit

    parts, peak = memory(recipe, plan.clips, plan.gpus, gpu, assumed)
    most = bisect(range(1, MOST + 1), False, key=lambda clips: not fits(clips, 1))
    splits = range(1, 2 if recipe.fsdp else plan.clips + 1)
    accumulate = next((split for split in splits if fits(plan.clips, split)), 0)
    return Estimate(plan, parts, peak, peak <= limit, most, accumulate, *times(recipe, plan, gpu, assumed))


def precision_of(recipe: Recipe) -> Precision:
    """Return the precision of activations: FSDP also rounds the residual stream, autocast does not."""
    half = recipe.precision in HALVES
    return Precision(2 if half and recipe.fsdp else FLOAT, 2 if half else FLOAT)


def steps_of(recipe: Recipe, clips: int, gpu: GPU, assumed: Assumptions) -> list[Step]:
    """Return a step of the first codebook and one of a later codebook, whose attention is restricted."""
    flash = gpu.ampere and recipe.precision in HALVES
    return [Step(clips, assumed.text_tokens, stage, flash, cuda=True) for stage in (0, 1)]


def shard(recipe: Recipe, ranks: int) -> int:
    """Count the parameters of one rank; FSDP splits each unit evenly and pads it."""
    return sum(-(-sum(unit) // ranks) for unit in recipe.units) if recipe.fsdp else recipe.parameters


def memory(recipe: Recipe, clips: int, ranks: int, gpu: GPU, assumed: Assumptions) -> tuple[dict[str, float], float]:
    """Return the bytes of one rank by purpose, and their peak.

    The peak is the largest of several moments: the codec has finished before the transformer starts, gradients grow while
    activations are freed, and the optimizer runs after that.
    """
    own, optimizer, precision = shard(recipe, ranks), OPTIMIZERS[recipe.optimizer], precision_of(recipe)
    steps = steps_of(recipe, -(-clips // recipe.accumulate), gpu, assumed)
    most = max((stored(recipe.shape, step, precision) for step in steps), key=lambda one: one.at_start)
    fixed = {"weights": FLOAT * own, "optimizer": FLOAT * optimizer.states * own,
             "EMA": FLOAT * own if recipe.ema_every else 0, "text encoder": recipe.text.held, "codec": recipe.codec.held}
    sizes = sorted(map(sum, recipe.units), reverse=True)        # full_shard holds a unit and the next one
    gathered = precision.compute * sum(sizes[:2] if recipe.fsdp == "full_shard" else sizes) if recipe.fsdp else 0
    encoding = max(recipe.codec.peak, recipe.text.peak) * clips
    parts = {**fixed, "gradients": FLOAT * own, "activations": most.layers, "logits": most.logits,
             "weight copies": gathered or most.weights, "codec activations": encoding}
    moments = [encoding, FLOAT * own * (1 + optimizer.work), *_backward(recipe, most, gathered, own)]
    return parts, sum(fixed.values()) + max(moments)


def _backward(recipe: Recipe, most: Stored, gathered: float, own: int) -> list[float]:
    """Return the bytes at the start and at the end of the backward pass."""
    if recipe.fsdp:                             # a unit's gradient is cast, reduced, and its shard kept
        unit = max(map(sum, recipe.units)) * (precision_of(recipe).compute + recipe.reduce)
        return [most.at_start - most.weights + gathered, FLOAT * own + gathered + most.at_end + unit]
    shape, whole = recipe.shape, FLOAT * recipe.parameters
    heads = FLOAT * shape.codebooks * shape.card * shape.dim                # zeros from `touch_all`
    last = FLOAT * (shape.layer_weights + shape.codebooks * (shape.card + 1) * shape.dim)
    before = whole if recipe.accumulate > 1 else 0                          # gradient of earlier micro-batches
    return [before + most.at_start + heads, before + max(whole - last + most.at_end, 0), whole]


def times(recipe: Recipe, plan: Plan, gpu: GPU, assumed: Assumptions) -> tuple[dict[str, float], Traffic, float, float]:
    """Return the seconds by purpose, the traffic, the network's seconds, and the products' seconds at the peak.

    Times are means over the codebooks, which are drawn uniformly.
    """
    shape, precision, clips = recipe.shape, precision_of(recipe), plan.clips
    rate = assumed.efficiency * (gpu.half if recipe.precision in HALVES else gpu.float32)
    bandwidth = assumed.bandwidth * gpu.bandwidth
    first, later = steps_of(recipe, clips, gpu, assumed)

    def mean(cost: tp.Callable[[Step], Passes], unit: float) -> Passes:
        pairs = zip(cost(first), cost(later))
        return Passes(*((one + (shape.codebooks - 1) * two) / shape.codebooks / unit for one, two in pairs))

    compute = mean(lambda step: flops(shape, step), rate)
    traffic = mean(lambda step: moved(shape, step, precision), bandwidth)
    text, codec = recipe.text, recipe.codec
    encoding = clips / assumed.efficiency * (text.flops / gpu.float32 + codec.flops / gpu.convolution)
    encoding += codec.recurrent * assumed.recurrence
    update = shard(recipe, plan.gpus) * (OPTIMIZERS[recipe.optimizer].moved + CLIP * recipe.clips_gradients
                                         + (EMA / recipe.ema_every if recipe.ema_every else 0)
                                         + UNSCALE * (recipe.precision == "float16"))
    if recipe.fsdp:                             # gradients are cast before they are reduced
        update += recipe.parameters * (precision.compute + recipe.reduce)
    sent, network, hidden = _network(recipe, plan.gpus, gpu, assumed, *(a + b for a, b in zip(compute, traffic)))
    seconds = {"compute": encoding + sum(compute), "network": network - hidden,
               "memory": sum(traffic) + (clips * (text.moved + codec.moved) + update) / bandwidth}
    return seconds, sent, network, sum(compute) * assumed.efficiency


def _network(recipe: Recipe, ranks: int, gpu: GPU, assumed: Assumptions, forward: float, backward: float
             ) -> tuple[Traffic, float, float]:
    """Return what one rank sends, its seconds, and how many of them overlap with the two passes."""
    if not recipe.fsdp:                         # flashy reduces parameter by parameter
        sent = total(all_reduce(FLOAT * size, ranks) for unit in recipe.units for size in unit)
        seconds = sent.seconds(gpu, assumed.link)
        return sent, seconds, min(seconds, backward) if recipe.eager and recipe.accumulate == 1 else 0.0
    sizes = [sum(unit) for unit in recipe.units]
    gathers = total(gather(precision_of(recipe).compute * size, ranks) for size in sizes)
    reduces = total(gather(recipe.reduce * size, ranks) for size in sizes)
    if recipe.fsdp == "full_shard":             # gathers again in the backward pass
        reduces = total([reduces, gathers])
    there, back = gathers.seconds(gpu, assumed.link), reduces.seconds(gpu, assumed.link)
    return total([gathers, reduces]), there + back, min(there, forward) + min(back, backward)
