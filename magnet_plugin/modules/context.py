"""Attention contexts: which frames a frame may attend to (section 3.2, restricted context).

EnCodec's later codebooks depend on a few frames around them. The model therefore attends to the whole clip for the first
codebook (`Full`) and to a narrow band for the others (`Band`).
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor


class Context(ABC):
    """Which keys each query may attend to. A new context only has to implement `dense`."""

    @abstractmethod
    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> Tensor:
        """Bool [T_q, T_k], True = attend; leading dimensions that broadcast with [B, H] are allowed."""

    def reduced(self, num_queries: int, num_keys: int) -> Context:
        """Return the simplest context that is equivalent for these lengths."""
        return self


@dataclass(frozen=True)
class Full(Context):
    """Every query attends to every key; self- and cross-attention."""

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> Tensor:
        return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)


@dataclass(frozen=True, eq=False)
class Keys(Context):
    """Every query attends to the keys that a sample has; cross-attention to padded texts.

    Attributes:
        mask: Bool [B, T_k].
    """
    mask: Tensor

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> Tensor:
        return self.mask[:, None, None].expand(-1, -1, num_queries, -1)


class SelfAttention(Context):
    """A context of self-attention: there are as many keys as queries.

    Raises:
        ValueError: on use, if there are not.
    """

    def _check(self, num_queries: int, num_keys: int) -> None:
        if num_queries != num_keys:
            raise ValueError(f"{type(self).__name__} is for self-attention, got {num_queries} queries and {num_keys} keys")


@dataclass(frozen=True)
class Causal(SelfAttention):
    """Position t attends to itself and to those before it."""

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> Tensor:
        self._check(num_queries, num_keys)
        return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril()

    def reduced(self, num_queries: int, num_keys: int) -> Context:
        self._check(num_queries, num_keys)
        return Full() if num_queries == 1 else self


@dataclass(frozen=True)
class Band(SelfAttention):
    """Frame t attends to the frames s with |t - s| <= width, on both sides.

    Attributes:
        width: number of frames on either side.
        masks: what kernels have made of it, for all layers of a pass; models create a context for each pass.
    Raises:
        ValueError: if `width` is negative.
    """
    width: int
    masks: dict[Hashable, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ValueError(f"Band(width={self.width}): width must be at least 0 frames; use Full() to "
                             "attend to all frames")

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> Tensor:
        self._check(num_queries, num_keys)
        frame = torch.arange(num_queries, device=device)
        return (frame.unsqueeze(1) - frame).abs() <= self.width

    def reduced(self, num_queries: int, num_keys: int) -> Context:
        self._check(num_queries, num_keys)
        return Full() if self.width >= num_queries - 1 else self
