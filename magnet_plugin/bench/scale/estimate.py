"""One training step of a recipe on so many GPUs: memory, time, network, and what bounds it."""
from __future__ import annotations

import dataclasses
import typing as tp

from .costs import FLOAT, Kept, Precision, Step, flops, kept, moved
from .hardware import GPU, HALVES, Assumptions, Traffic, all_reduce, gather, get_gpu, nodes_of
from .recipes import Recipe


class Optimizer(tp.NamedTuple):
    """States of a parameter's size, bytes moved per parameter and update, a transient share of the parameters' bytes, and
    kernels per tensor: torch's foreach kernels for Adam, AudioCraft's loop over tensors for D-Adaptation."""
    states: int
    moved: float
    work: float
    kernels: int


OPTIMIZERS = {"adamw": Optimizer(2, 84, 1, 0), "adam": Optimizer(2, 76, 1, 0), "dadam": Optimizer(3, 188, 0, 20)}
CLIP, EMA, UNSCALE = 12, 20, 8          # bytes moved per parameter


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where a recipe is to run.

    Attributes:
        gpus: ranks.
        gpu: key of `hardware.GPUS`.
        batch: clips over all ranks.
    """
    gpus: int
    gpu: str
    batch: int

    def __post_init__(self) -> None:
        nodes_of(self.gpus)
        if self.batch < 1 or self.batch % self.gpus:
            raise ValueError(f"--batch {self.batch} (dataset.batch_size) does not divide by --gpus {self.gpus}; set it to a "
                             f"multiple of {self.gpus}")

    @property
    def clips(self) -> int:
        """Of a rank."""
        return self.batch // self.gpus


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is computed for a plan; bytes and seconds of one rank and step.

    Attributes:
        memory: bytes by what they are for; they are not all there at the same time.
        peak: the most bytes at a time.
        fits: whether the peak leaves the reserve free.
        most: clips per rank that fit, in one part.
        accumulate: the least `optim.accumulate` with which the plan's clips fit; 0 where none does.
        seconds: by what they go to: products, memory traffic, and network that nothing hides.
        traffic: what a rank sends.
        network: seconds of it, hidden or not.
        host: seconds in which Python starts all kernels; the step takes at least as long.
        products: seconds that the transformer's matrix products would take at the GPU's peak.
    """
    plan: Plan
    memory: dict[str, float]
    peak: float
    fits: bool
    most: int
    accumulate: int
    seconds: dict[str, float]
    traffic: Traffic
    network: float
    host: float
    products: float

    @property
    def share(self) -> float:
        """Of the GPU's peak, that the transformer's matrix products reach over the whole step."""
        return self.products / self.step

    @property
    def step(self) -> float:
        return max(sum(self.seconds.values()), self.host)

    @property
    def bound(self) -> str:
        """What takes most of the step."""
        return "host" if self.host >= sum(self.seconds.values()) else max(self.seconds, key=lambda name: self.seconds[name])


def estimate(recipe: Recipe, plan: Plan, assumed: Assumptions) -> Estimate:
    """The step of a plan.

    Raises:
        ValueError: a setting that cannot work, named with its remedy.
    """
    gpu = get_gpu(plan.gpu, recipe.precision)
    if recipe.optimizer not in OPTIMIZERS:
        raise ValueError(f"optim.optimizer={recipe.optimizer}: the simulation knows {', '.join(OPTIMIZERS)}")
    if not 1 <= recipe.accumulate <= plan.clips:
        raise ValueError(f"optim.accumulate={recipe.accumulate} must lie between 1 and the {plan.clips} clips of a rank")
    if recipe.fsdp and recipe.accumulate > 1:
        raise ValueError("optim.accumulate above 1 is simulated without FSDP alone: set optim.accumulate=1")
    parts, peak = memory(recipe, plan.clips, plan.gpus, gpu, assumed)
    limit = gpu.memory * (1 - assumed.reserve)

    def fits(clips: int, accumulate: int) -> bool:
        return memory(dataclasses.replace(recipe, accumulate=accumulate), clips, plan.gpus, gpu, assumed)[1] <= limit

    most = largest(lambda clips: fits(clips, 1))
    in_parts = range(1, plan.clips + 1 if not recipe.fsdp else 2)
    accumulate = next((parts for parts in in_parts if fits(plan.clips, parts)), 0)
    return Estimate(plan, parts, peak, peak <= limit, most, accumulate, *times(recipe, plan, gpu, assumed))


def largest(fits: tp.Callable[[int], bool], limit: int = 1 << 14) -> int:
    """The largest number up to `limit` that fits, 0 for none; what fits is followed by nothing smaller that does not."""
    low, high = 0, limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def precision_of(recipe: Recipe) -> Precision:
    """Under FSDP the residual stream has the products' precision, under autocast that of the parameters."""
    half = recipe.precision in HALVES
    return Precision(2 if half and recipe.fsdp else FLOAT, 2 if half else FLOAT)


def steps_of(recipe: Recipe, clips: int, gpu: GPU, assumed: Assumptions) -> list[Step]:
    """A pass of the first stage and one of a later stage, whose context is restricted."""
    flash = gpu.flash and recipe.precision in HALVES
    return [Step(clips, assumed.text_tokens, stage, "flash" if flash else "blocked", apart=True) for stage in (0, 1)]


def shard(recipe: Recipe, ranks: int) -> int:
    """Parameters that a rank keeps: each of FSDP's units is split evenly, the last piece padded."""
    return sum(-(-sum(unit) // ranks) for unit in recipe.units) if recipe.fsdp else recipe.parameters


def memory(recipe: Recipe, clips: int, ranks: int, gpu: GPU, assumed: Assumptions) -> tuple[dict[str, float], float]:
    """Bytes of a rank by what they are for, and the most of them at a time.

    Gradients grow while activations go, the codec is through before the transformer begins, and the optimiser's work
    starts when the activations are gone: the peak is the largest of these moments.
    """
    own, whole = shard(recipe, ranks), recipe.parameters
    precision, optimizer = precision_of(recipe), OPTIMIZERS[recipe.optimizer]
    part = -(-clips // recipe.accumulate)
    found = [kept(recipe.shape, step, precision) for step in steps_of(recipe, part, gpu, assumed)]
    most = max(found, key=lambda one: one.first)
    fixed = {"weights": FLOAT * own, "optimiser": FLOAT * optimizer.states * own,
             "EMA": FLOAT * own if recipe.ema_every else 0, "text encoder": recipe.text.held, "codec": recipe.codec.held}
    gathered = precision.compute * _unsharded(recipe) if recipe.fsdp else 0
    encoding = max(recipe.codec.peak, recipe.text.peak) * clips
    at_a_time = {**fixed, "gradients": FLOAT * own, "activations": most.layers, "logits": most.logits,
                 "copies of the weights": gathered or most.weights, "codec's activations": encoding}
    moments = [encoding, FLOAT * own * (1 + optimizer.work), *_backward(recipe, most, gathered, own, whole)]
    return at_a_time, sum(fixed.values()) + max(moments)


def _unsharded(recipe: Recipe) -> int:
    """Parameters that FSDP holds whole at a time: all, or with `full_shard` two units, the next being gathered early."""
    sizes = sorted(map(sum, recipe.units), reverse=True)
    return sum(sizes[:2]) if recipe.fsdp == "full_shard" else sum(sizes)


def _backward(recipe: Recipe, most: Kept, gathered: float, own: int, whole: int) -> list[float]:
    """Bytes when the backward pass begins and when it ends."""
    shape = recipe.shape
    if recipe.fsdp:
        # A unit's gradient is cast to be reduced, and its shard is kept.
        unit, size = max(map(sum, recipe.units)), precision_of(recipe).compute
        return [most.first - most.weights + gathered,
                FLOAT * own + gathered + most.last + (size + recipe.reduce) * unit]
    before = FLOAT * whole if recipe.accumulate > 1 else 0                  # the gradient of the parts that are through
    heads = FLOAT * shape.codebooks * shape.card * shape.dim               # zeros from `touch_all`
    late = FLOAT * (shape.layer_weights + shape.codebooks * (shape.card + 1) * shape.dim)
    return [before + most.first + heads, before + max(FLOAT * whole - late + most.last, 0), FLOAT * whole]


def times(recipe: Recipe, plan: Plan, gpu: GPU, assumed: Assumptions
          ) -> tuple[dict[str, float], Traffic, float, float, float]:
    """Seconds of a step by what they go to, what a rank sends, the network's seconds, the host's, and the products' at peak.

    The stage is drawn uniformly: times are means over the stages. Gradients travel while the backward pass goes on where
    `optim.eager_sync` lets them, FSDP's shards during both passes; what takes longer than these passes is not hidden.
    """
    shape, precision, clips = recipe.shape, precision_of(recipe), plan.clips
    half = recipe.precision in HALVES
    rate, bandwidth = assumed.efficiency * (gpu.half if half else gpu.float32), assumed.bandwidth * gpu.bandwidth
    ahead, back, kernels = [0.0, 0.0], [0.0, 0.0], 0.0          # products and traffic, in seconds
    for share, step in zip((1 / shape.codebooks, 1 - 1 / shape.codebooks), steps_of(recipe, clips, gpu, assumed)):
        work, traffic = flops(shape, step), moved(shape, step, precision)
        ahead = [ahead[0] + share * work.forward / rate, ahead[1] + share * traffic.forward / bandwidth]
        back = [back[0] + share * work.backward / rate, back[1] + share * traffic.backward / bandwidth]
        kernels += share * (traffic.kernels_forward + traffic.kernels_backward) * recipe.accumulate
    text, codec = recipe.text, recipe.codec
    update = shard(recipe, plan.gpus) * (OPTIMIZERS[recipe.optimizer].moved + CLIP * recipe.clips
                                         + (EMA / recipe.ema_every if recipe.ema_every else 0)
                                         + UNSCALE * (recipe.precision == "float16"))
    if recipe.fsdp:                             # a gradient is cast to be reduced
        update += recipe.parameters * (precision.compute + recipe.reduce)
    first = clips * (text.flops / (assumed.efficiency * gpu.float32) + codec.flops / (assumed.efficiency * gpu.convolution))
    sent, network, hidden = _network(recipe, plan.gpus, gpu, assumed, sum(ahead), sum(back))
    seconds = {"compute": first + codec.recurrent * assumed.recurrence + ahead[0] + back[0],
               "memory": ahead[1] + back[1] + (clips * (text.moved + codec.moved) + update) / bandwidth,
               "network": network - hidden}
    per_tensor = OPTIMIZERS[recipe.optimizer].kernels + (3 if plan.gpus > 1 and not recipe.fsdp else 0)
    host = (kernels + per_tensor * recipe.tensors) * assumed.launch
    return seconds, sent, network, host, (ahead[0] + back[0]) * assumed.efficiency


def _network(recipe: Recipe, ranks: int, gpu: GPU, assumed: Assumptions, ahead: float, back: float
             ) -> tuple[Traffic, float, float]:
    """What a rank sends in a step, its seconds, and how many of them the passes hide."""
    def total(parts: tp.Iterable[Traffic]) -> Traffic:
        return sum(parts, Traffic())

    if not recipe.fsdp:
        sent = total(all_reduce(FLOAT * size, ranks) for unit in recipe.units for size in unit)
        seconds = sent.seconds(gpu, assumed.link)
        return sent, seconds, min(seconds, back) if recipe.eager and recipe.accumulate == 1 else 0.0
    sizes = [sum(unit) for unit in recipe.units]
    gathers = total(gather(precision_of(recipe).compute * size, ranks) for size in sizes)
    reduces = total(gather(recipe.reduce * size, ranks) for size in sizes)
    if recipe.fsdp == "full_shard":
        reduces += gathers                                                   # gathered again in the backward pass
    there, again = gathers.seconds(gpu, assumed.link), reduces.seconds(gpu, assumed.link)
    return gathers + reduces, there + again, min(there, ahead) + min(again, back)
