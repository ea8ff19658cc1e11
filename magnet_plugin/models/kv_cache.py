"""Keys and values of columns that were computed before, kept by layer: attention that goes on from them."""
import dataclasses
import typing as tp

import torch
from audiocraft.modules.transformer import StreamingMultiheadAttention
from torch import nn

from ..modules.attention import Context
from .transformer import ContextAttentionLayer, project

Memory = dict[nn.Module, tuple[torch.Tensor, torch.Tensor]]


@dataclasses.dataclass(eq=False)
class Past(Context):
    """A context over columns that were computed before and those at hand; it keeps their keys and values by layer.

    Attributes:
        context: what the columns at hand attend to, among all.
        memory: keys and values [B, H, columns so far, d] of each layer's attention.
        keep: remember the columns at hand as well.
    """
    context: Context
    memory: Memory = dataclasses.field(default_factory=dict)
    keep: bool = True

    def dense(self, num_queries: int, num_keys: int, device: tp.Any = None) -> torch.Tensor:
        return self.context.dense(num_queries, num_keys, device)

    def extend(self, owner: nn.Module, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of all columns, given those at hand; of the first rows, where there are fewer at hand."""
        if owner in self.memory:
            old_k, old_v = (old[:len(k)] for old in self.memory[owner])
            k, v = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)
        if self.keep:
            self.memory[owner] = k, v
        return k, v


class RememberingLayer(ContextAttentionLayer):
    """A layer whose self-attention goes on from a `Past`."""

    def _attention(self, weights: StreamingMultiheadAttention, queries: torch.Tensor, keys: torch.Tensor,
                   context: Context) -> torch.Tensor:
        if not isinstance(context, Past):
            return super()._attention(weights, queries, keys, context)
        q, k, v = project(weights, queries, keys)
        return self._weigh(weights, q, *context.extend(weights, k, v), context.context)
