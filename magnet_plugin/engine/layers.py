"""What the fast path does between linear layers and attention, in float32: embeddings, residual sums and norms."""
import typing as tp

import torch
from torch.nn import functional as F

from .weights import Norm


def embed(tokens: torch.Tensor, tables: tp.Sequence[torch.Tensor], positions: torch.Tensor) -> torch.Tensor:
    """Add the embeddings of all codebooks and of the positions.

    Args:
        tokens: Long [B, K, T].
        tables: K embeddings [card + 1, D], any float type.
        positions: float32 [T, D].
    Returns:
        Float32 [B, T, D].
    """
    x = positions
    for k, table in enumerate(tables):
        x = x + F.embedding(tokens[:, k], table)
    return x


def add(x: torch.Tensor, delta: tp.Optional[torch.Tensor], constant: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
    """Add the output of a layer to the residual stream in place.

    Args:
        x: float32 [rows, T, D].
        delta: what to add to the first rows, [rows or fewer, T, D], any float type; None adds nothing.
        constant: what to add to the remaining rows, the same for all frames, [remaining rows, 1, D].
    Returns:
        `x`.
    """
    if delta is not None:
        x[:len(delta)] += delta
        if constant is not None:
            x[len(delta):] += constant
    return x


def add_norm(x: torch.Tensor, delta: tp.Optional[torch.Tensor], norm: Norm, constant: tp.Optional[torch.Tensor] = None
             ) -> torch.Tensor:
    """Run `add`, then return the layer norm of the result, [rows, T, D]."""
    return norm(add(x, delta, constant))
