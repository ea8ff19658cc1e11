"""What one training step of a MAGNeT transformer computes, keeps and moves, in closed form.

The formulas follow the model's own operations (`lm.py`, `layers.py`, `attention.py`, `losses.py`); `tests/test_scale.py`
holds them to what torch counts on the real model: FLOPs, tensors saved for the backward pass, bytes moved, kernels.
"""
from __future__ import annotations

import dataclasses
import typing as tp

from ...modules import attention_kernels

Kernel = tp.Literal["flash", "blocked", "dense"]
_TILE = 128         # queries and keys of a tile in the flash kernels
FLOAT = 4           # bytes


@dataclasses.dataclass(frozen=True)
class Shape:
    """A transformer and what it is given.

    Attributes:
        dim, heads, layers, hidden: channels, heads, layers, channels of the feed-forward part.
        codebooks, card: streams of tokens K, and entries of each.
        frames: T of a clip.
        context: frames to either side that stages after the first attend to; -1 for all.
        text_dim: channels of the text embedding before its projection, 0 without text.
        text_learns: whether a gradient goes on from the projection into the text's embedding.
        checkpointing: every layer is computed twice and keeps its input alone.
    """
    dim: int
    heads: int
    layers: int
    hidden: int
    codebooks: int
    card: int
    frames: int
    context: int = 5
    text_dim: int = 0
    text_learns: bool = False
    checkpointing: bool = False

    @property
    def norms(self) -> int:
        return 3 if self.text_dim else 2

    @property
    def layer_weights(self) -> int:
        """Entries of a layer's matrices."""
        return self.dim * ((8 if self.text_dim else 4) * self.dim + 2 * self.hidden)


@dataclasses.dataclass(frozen=True)
class Precision:
    """Bytes of a number in the residual stream and in matrix products; they differ under autocast."""
    residual: int
    compute: int

    @property
    def casts(self) -> bool:
        return self.residual != self.compute


@dataclasses.dataclass(frozen=True)
class Step:
    """One pass of a batch through the model.

    Attributes:
        batch: clips B.
        text: tokens S that captions are padded to.
        stage: codebook that is trained; the first attends to all frames.
        kernel: attention's: `flash` and `blocked` keep to the band, `dense` weighs all pairs of frames.
        apart: the windows of `blocked` do not share memory (CUDA).
    """
    batch: int
    text: int
    stage: int
    kernel: Kernel
    apart: bool = False


class Blocks(tp.NamedTuple):
    """The windows of `attention_kernels._torch_blocked`: how many, their queries, their keys."""
    number: int
    queries: int
    keys: int


def banded(shape: Shape, step: Step) -> bool:
    """Whether attention is restricted."""
    return step.stage > 0 and 0 <= shape.context < shape.frames - 1


def blocks(shape: Shape, step: Step) -> tp.Optional[Blocks]:
    """The windows, None where attention does not go by them."""
    if step.kernel != "blocked" or not banded(shape, step):
        return None
    queries = attention_kernels.block_length(shape.frames, shape.context)
    keys = queries + 2 * shape.context
    if keys >= shape.frames:
        return None
    if step.apart:
        keys = -(-keys // attention_kernels._ALIGN) * attention_kernels._ALIGN
    return Blocks(-(-shape.frames // queries), queries, keys)


def pairs(shape: Shape, step: Step) -> float:
    """Pairs of query and key of one clip and head that are computed."""
    windows = blocks(shape, step)
    if windows:
        return windows.number * windows.queries * windows.keys
    if step.kernel == "flash" and banded(shape, step):
        reach = _TILE * (1 + 2 * -(-shape.context // _TILE))
        return shape.frames * min(shape.frames, reach)
    return shape.frames ** 2


class Flops(tp.NamedTuple):
    """Of matrix products."""
    forward: float
    backward: float


def flops(shape: Shape, step: Step) -> Flops:
    """FLOPs of the transformer, the head of one stage and the text's projection; 2 per multiplication and addition.

    Backward costs twice forward; fused attention computes the scores once more.
    """
    tokens, words = step.batch * shape.frames, step.batch * step.text
    cross = 2 * shape.dim ** 2 if shape.text_dim else 0                 # keys and values are of the text
    products = 2 * tokens * (shape.layer_weights - cross) + 2 * words * cross
    weighing = 4 * step.batch * shape.dim * (pairs(shape, step) + (shape.frames * step.text if shape.text_dim else 0))
    again = 2.0 if step.kernel == "dense" else 2.5
    head = 2 * tokens * shape.dim * shape.card
    text = 2 * words * shape.text_dim * shape.dim
    backward = shape.layers * (2 * products + again * weighing) + 2 * head + (1 + shape.text_learns) * text
    if shape.checkpointing:                     # all but the layer's last product, whose result nobody asks for again
        backward += shape.layers * (products + weighing - 2 * tokens * shape.hidden * shape.dim)
    return Flops(shape.layers * (products + weighing) + head + text, backward)


class Kept(tp.NamedTuple):
    """Bytes that autograd keeps from forward to backward.

    Attributes:
        layers: of all layers, and of what stands around them.
        logits: log-probabilities of one head.
        weights: copies of the matrices in the products' precision.
        layer: of one layer.
        work: what is there besides while a layer is differentiated, at its most.
    """
    layers: float
    logits: float
    weights: float
    layer: float
    work: float

    @property
    def saved(self) -> float:
        return self.layers + self.logits + self.weights

    @property
    def first(self) -> float:
        """When the backward pass begins: the loss's work or, its logits gone, that of the last layer."""
        return self.saved + max(self.work - self.logits, 2 * self.logits)

    @property
    def last(self) -> float:
        """When it ends, at the first layer."""
        return self.layer + self.work


def kept(shape: Shape, step: Step, precision: Precision) -> Kept:
    """Activations: inputs of norms in the residual's precision, inputs of products and attention in theirs."""
    tokens, words = step.batch * shape.frames, step.batch * step.text
    d, r, c = shape.dim, precision.residual, precision.compute
    norms = shape.norms * tokens * (d * r + d * c + 2 * FLOAT)
    layer: float = norms + _attention_keeps(shape, step, c) + 2 * tokens * shape.hidden * c
    if shape.text_dim:
        layer += 2 * tokens * d * c + 2 * words * d * c + step.batch * shape.heads * shape.frames * FLOAT
    casts = c * (shape.layers * shape.layer_weights + d * shape.card) if precision.casts else 0
    around = tokens * (d * (r + c) + 2 * FLOAT + 8 * (shape.codebooks + 1) + 2) + words * (d + shape.text_dim) * c
    work: float = tokens * d * (r + 5 * c)
    layers = shape.layers * layer
    if shape.checkpointing:                                             # its input; the rest while it is differentiated
        work += layer + (c * shape.layer_weights if precision.casts else 0)
        layer = tokens * d * r
        layers, casts = shape.layers * layer, c * d * shape.card if precision.casts else 0
    return Kept(layers + around, tokens * shape.card * FLOAT, casts, layer, work)


def _attention_keeps(shape: Shape, step: Step, c: int) -> float:
    """Of self-attention in one layer: queries, keys, values, result, sums; the windows' mask; and the result as it goes
    into its projection, where that is a copy."""
    windows, d = blocks(shape, step), shape.dim
    if windows is None:
        scores = 2 * step.batch * shape.heads * shape.frames ** 2 * c if step.kernel == "dense" else 0
        return step.batch * (4 * shape.frames * d * c + shape.heads * shape.frames * FLOAT) + scores
    queries = windows.number * windows.queries
    keys = windows.number * windows.keys if step.apart else (windows.number - 1) * windows.queries + windows.keys
    mask = queries * windows.keys * (c + 1)
    return step.batch * ((2 * queries + 2 * keys + shape.frames) * d * c + shape.heads * queries * FLOAT) + mask


class Moved(tp.NamedTuple):
    """Bytes that operations other than products read and write, and kernels that are started, forward and backward."""
    forward: float
    backward: float
    kernels_forward: int
    kernels_backward: int


def moved(shape: Shape, step: Step, precision: Precision) -> Moved:
    """Norms, residual sums, activations, casts, the ends of attention, the loss."""
    d, r, c = shape.dim, precision.residual, precision.compute
    n, tokens = shape.norms, step.batch * shape.frames
    cast = n * (r + c) * d if precision.casts else 0
    cross = 2 * d * c if shape.text_dim else 0
    ahead: float = n * 2 * d * r + cast + 4 * d * c + cross + n * (2 * r + c) * d + 2 * shape.hidden * c
    back: float = 2 * cast + n * 3 * d * r + n * 3 * d * r + 3 * shape.hidden * c + 14 * d * c + 2 * cross
    if blocks(shape, step):
        ahead, back = ahead + 12.5 * d * c, back + 24 * d * c           # paddings, windows, their gradients
    weights = (c + FLOAT) * shape.layer_weights if precision.casts else 0
    loss, emb, table = tokens * shape.card, tokens * shape.codebooks * d * r, shape.codebooks * shape.card * d * FLOAT
    half = c + FLOAT if precision.casts else 0
    forward = shape.layers * (tokens * ahead + weights) + loss * (4 * c + 12 + half) + 5 * emb
    backward = shape.layers * (tokens * back + weights) + loss * (4 * c + 20 + half) + emb + 3 * table   # zeros, then sums
    if shape.checkpointing:
        backward += shape.layers * (tokens * ahead + weights)
    parts = shape.norms + 2 + (2 if shape.text_dim else 0)              # products and norms of a layer: about as many casts
    first = (16 if shape.text_dim else 10) + (22 if blocks(shape, step) else 0) + (parts + 3 if precision.casts else 0)
    second = (27 if shape.text_dim else 18) + (10 if blocks(shape, step) else 0) + (parts + 6 if precision.casts else 0)
    again = first if shape.checkpointing else 0
    return Moved(forward, backward, shape.layers * first + 40, shape.layers * (second + again) + 30)
