"""AudioCraft's transformer layer with attention by `modules.attention`, and a KV cache for autoregressive decoding."""
import dataclasses
import typing as tp

import torch
from audiocraft.modules.transformer import StreamingMultiheadAttention, StreamingTransformerLayer
from torch import nn
from torch.nn import functional as F

from ..modules.attention import Context, Full, attend


class ContextAttentionLayer(StreamingTransformerLayer):
    """AudioCraft's layer and weights, with attention by `attention.attend`.

    `src_mask` is a `Context`, not a tensor. `attention_backend` chooses the kernels.
    """

    def __init__(self, *args: tp.Any, attention_backend: str = "auto", **kwargs: tp.Any) -> None:
        super().__init__(*args, **kwargs)
        self.attention_backend = attention_backend

    def _sa_block(self, x: torch.Tensor, attn_mask: tp.Any, key_padding_mask: tp.Any = None,
                  is_causal: bool = False) -> torch.Tensor:
        context = Full() if attn_mask is None else attn_mask
        return self.dropout1(self._attention(self.self_attn, x, x, context))

    def _cross_attention_block(self, src: torch.Tensor, cross_attention_src: torch.Tensor) -> torch.Tensor:
        weights = tp.cast(StreamingMultiheadAttention, self.cross_attention)
        return self.dropout_cross(self._attention(weights, src, cross_attention_src, Full()))

    def _attention(self, weights: StreamingMultiheadAttention, queries: torch.Tensor, keys: torch.Tensor,
                   context: Context) -> torch.Tensor:
        q, k, v = project(weights, queries, keys)
        if isinstance(context, KVCache):
            k, v = context.extend(weights, k, v)
            context = context.context
        dtype = q.dtype
        if weights.attention_as_float32:
            q, k, v = q.float(), k.float(), v.float()
        dropout = weights.dropout if weights.training else 0.0
        out = attend(q, k, v, context, backend=self.attention_backend, dropout=dropout).to(dtype)
        out_proj = weights.out_proj if weights.custom else weights.mha.out_proj
        return out_proj(out.transpose(1, 2).flatten(2))


@dataclasses.dataclass(eq=False)
class KVCache(Context):
    """A context that spans earlier columns and the present ones; it stores keys and values of each layer.

    Attributes:
        context: what the present columns attend to, among all columns.
        entries: keys and values [B, H, columns so far, d] of each layer's attention.
        frozen: use the cache without adding the present columns to it.
    """
    context: Context
    entries: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = dataclasses.field(default_factory=dict)
    frozen: bool = False

    def dense(self, num_queries: int, num_keys: int, device: tp.Any = None) -> torch.Tensor:
        return self.context.dense(num_queries, num_keys, device)

    def extend(self, owner: nn.Module, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of all columns, given the present ones [B, H, columns, d].

        If the batch has fewer rows than the cache, the cache's first rows are used.
        """
        if owner in self.entries:
            old_k, old_v = (old[:len(k)] for old in self.entries[owner])
            k, v = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)
        if not self.frozen:
            self.entries[owner] = k, v
        return k, v


def project(weights: StreamingMultiheadAttention, queries: torch.Tensor, keys: torch.Tensor
            ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Project with AudioCraft's packed weights.

    Args:
        weights: the attention module.
        queries: [B, T, D].
        keys: [B, S, D]; the same tensor as `queries` for self-attention.
    Returns:
        q [B, H, T, d], and k and v [B, H, S, d].
    """
    holder = weights if weights.custom else weights.mha
    weight, bias = holder.in_proj_weight, holder.in_proj_bias
    width = queries.shape[-1]
    kv_width = (weight.shape[0] - width) // 2
    sizes = [width, kv_width, kv_width]
    if keys is queries:
        q, k, v = F.linear(queries, weight, bias).split(sizes, dim=-1)
    else:
        of_q, of_kv = weight.split([width, 2 * kv_width])
        bias_q, bias_kv = (None, None) if bias is None else bias.split([width, 2 * kv_width])
        q = F.linear(queries, of_q, bias_q)
        k, v = F.linear(keys, of_kv, bias_kv).chunk(2, dim=-1)
    if weights.qk_layer_norm:
        q, k = weights.q_layer_norm(q), weights.k_layer_norm(k)
    head_dim = width // weights.num_heads
    q, k, v = (x.unflatten(-1, (-1, head_dim)) for x in (q, k, v))                 # [B, T, H, d]
    if weights.rope is not None:
        q, k = weights.rope.rotate_qk(q, k, start=0, time_dim=1)
    if weights.kv_repeat > 1:
        k, v = (x.repeat_interleave(weights.kv_repeat, dim=2) for x in (k, v))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
