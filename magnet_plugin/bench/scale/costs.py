"""Count what one training step of a MAGNeT transformer computes, stores and moves, in closed form.

The formulas follow the operations of `models/transformer.py`, `modules/attention.py` and `modules/losses.py`;
`tests/bench/test_scale_formulas.py` compares them with what torch counts on the real model.
"""
from __future__ import annotations

import typing as tp
from dataclasses import dataclass

FLOAT = 4               # bytes of a float32
TILE = 128              # queries and keys of a tile in the flash kernels


@dataclass(frozen=True)
class Shape:
    """A transformer and the length of its clips."""
    dim: int
    heads: int
    layers: int
    hidden: int                     # channels of the feed-forward layers
    codebooks: int                  # K
    card: int                       # entries of a codebook
    frames: int                     # T
    context: int = 5                # frames on either side that codebooks after the first attend to; -1: all
    text_dim: int = 0               # channels of the text embedding before its projection; 0: no text
    trains_text: bool = False       # whether the text embedding receives a gradient
    checkpointing: bool = False     # whether layers store only their input and are recomputed

    @property
    def norms(self) -> int:
        return 3 if self.text_dim else 2

    @property
    def layer_weights(self) -> int:
        """Entries of the matrices of one layer."""
        return self.dim * ((8 if self.text_dim else 4) * self.dim + 2 * self.hidden)


class Step(tp.NamedTuple):
    """One micro-batch. The two precisions differ under autocast."""
    batch: int                      # clips
    text: int                       # tokens that captions are padded to
    residual: int                   # bytes of a number in the residual stream
    compute: int                    # bytes of a number in matrix products and attention

    @property
    def casts(self) -> bool:
        return self.residual != self.compute


class Passes(tp.NamedTuple):
    """A quantity of the forward and the backward pass."""
    forward: float
    backward: float


def pairs(shape: Shape, step: Step) -> float:
    """Count the query-key pairs that are computed for one clip and head: the mean over the codebooks, drawn uniformly.

    In half precision, flash kernels skip the tiles that codebooks after the first do not attend to. In float32 all pairs
    are counted, which is more than the kernel for restricted attention computes.
    """
    keys = shape.frames
    if step.compute < FLOAT and shape.context >= 0:
        keys = min(keys, TILE * (1 + 2 * -(-shape.context // TILE)))
    return shape.frames * (shape.frames + (shape.codebooks - 1) * keys) / shape.codebooks


def attention_flops(shape: Shape, step: Step) -> float:
    """Count the FLOPs of self- and cross-attention in one layer's forward pass, without the projections."""
    cross = shape.frames * step.text if shape.text_dim else 0
    return 4 * step.batch * shape.dim * (pairs(shape, step) + cross)


def flops(shape: Shape, step: Step) -> Passes:
    """Count the FLOPs of the transformer, one output head and the text projection.

    A multiplication and an addition are two FLOPs. The backward pass takes twice the forward pass; fused attention
    also recomputes its scores.
    """
    tokens, words = step.batch * shape.frames, step.batch * step.text
    cross = 2 * shape.dim ** 2 if shape.text_dim else 0         # keys and values are computed from the text
    linear = 2 * tokens * (shape.layer_weights - cross) + 2 * words * cross
    scores = attention_flops(shape, step)
    head, text = 2 * tokens * shape.dim * shape.card, 2 * words * shape.text_dim * shape.dim
    backward = shape.layers * (2 * linear + 2.5 * scores) + 2 * head + (1 + shape.trains_text) * text
    if shape.checkpointing:                     # the last product of a layer is not needed again
        backward += shape.layers * (linear + scores - 2 * tokens * shape.hidden * shape.dim)
    return Passes(shape.layers * (linear + scores) + head + text, backward)


class Stored(tp.NamedTuple):
    """Bytes that the forward pass stores for the backward pass."""
    layers: float                   # all layers, and the embeddings and norm around them
    logits: float                   # log-probabilities of one head
    weights: float                  # weights cast to the precision of the products
    layer: float                    # one layer
    work: float                     # temporary, while one layer is differentiated

    @property
    def total(self) -> float:
        return self.layers + self.logits + self.weights

    @property
    def at_start(self) -> float:
        """Bytes when the backward pass begins: work of the loss or, once its logits are free, of the last layer."""
        return self.total + max(self.work - self.logits, 2 * self.logits)

    @property
    def at_end(self) -> float:
        """Bytes when the backward pass reaches the first layer."""
        return self.layer + self.work


def stored(shape: Shape, step: Step) -> Stored:
    """Count the activations: inputs of norms in the residual's precision, of products and attention in theirs."""
    tokens, words = step.batch * shape.frames, step.batch * step.text
    d, r, c, casts = shape.dim, step.residual, step.compute, step.casts
    layer: float = shape.norms * tokens * (d * (r + c) + 2 * FLOAT) + 2 * tokens * shape.hidden * c
    # Attention: queries, keys, values, result and softmax sums. The kernel for restricted attention in float32 copies keys
    # and values into overlapping windows, and its result.
    layer += tokens * ((6 if c == FLOAT and shape.context >= 0 else 4) * d * c + shape.heads * FLOAT)
    if shape.text_dim:
        layer += 2 * (tokens + words) * d * c + tokens * shape.heads * FLOAT
    copies = c * (shape.layers * shape.layer_weights + d * shape.card) if casts else 0
    around = tokens * (d * (r + c) + 2 * FLOAT + 8 * (shape.codebooks + 1) + 2) + words * (d + shape.text_dim) * c
    work: float = tokens * d * (r + 5 * c)
    if shape.checkpointing:                     # a layer stores its input; the rest exists while it is differentiated
        work += layer + (c * shape.layer_weights if casts else 0)
        layer, copies = tokens * d * r, c * d * shape.card if casts else 0
    return Stored(shape.layers * layer + around, tokens * shape.card * FLOAT, copies, layer, work)


def moved(shape: Shape, step: Step) -> Passes:
    """Count the bytes read and written by everything but matrix products: norms, sums, activations, casts, the loss."""
    d, r, c, casts = shape.dim, step.residual, step.compute, step.casts
    n, tokens = shape.norms, step.batch * shape.frames
    cast = n * (r + c) * d if casts else 0
    cross = 2 * d * c if shape.text_dim else 0
    ahead: float = n * (4 * r + c) * d + cast + 4 * d * c + cross + 2 * shape.hidden * c
    back: float = 2 * cast + n * 6 * d * r + 3 * shape.hidden * c + 14 * d * c + 2 * cross
    weights = (c + FLOAT) * shape.layer_weights if casts else 0
    loss, embedding = tokens * shape.card, tokens * shape.codebooks * d * r
    half = c + FLOAT if casts else 0
    forward = shape.layers * (tokens * ahead + weights)
    backward = shape.layers * (tokens * back + weights) + (forward if shape.checkpointing else 0)
    tables = 3 * shape.codebooks * shape.card * d * FLOAT       # gradients of the embeddings: zeros, then sums
    return Passes(forward + loss * (4 * c + 12 + half) + 5 * embedding,
                  backward + loss * (4 * c + 20 + half) + embedding + tables)
