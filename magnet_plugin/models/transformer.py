"""AudioCraft's transformer layer with attention by `modules.attention`, and a KV cache for autoregressive decoding."""
import dataclasses
import typing as tp

import torch
from audiocraft.modules.transformer import (
    StreamingMultiheadAttention,
    StreamingTransformerLayer,
    create_sin_embedding,
)
from torch import nn
from torch.nn import functional as F

from ..engine.weights import projections_of
from ..modules.attention import attend
from ..modules.context import Context, Full, Keys


class ContextAttentionLayer(StreamingTransformerLayer):
    """AudioCraft's layer and weights, with attention by `attention.attend`.

    `src_mask` is a `Context`, not a tensor, and `cross_attention_src` a source [B, S, D] with its mask, Bool [B, S] or None.
    `attention_backend` chooses the kernels.
    """

    def __init__(self, *args: tp.Any, attention_backend: str = "auto", **kwargs: tp.Any) -> None:
        super().__init__(*args, **kwargs)
        self.attention_backend = attention_backend

    def _sa_block(self, x: torch.Tensor, attn_mask: tp.Any, key_padding_mask: tp.Any = None,
                  is_causal: bool = False) -> torch.Tensor:
        context = Full() if attn_mask is None else attn_mask
        return self.dropout1(self._attention(self.self_attn, x, x, context))

    def _cross_attention_block(self, src: torch.Tensor, cross_attention_src: tp.Any) -> torch.Tensor:
        attention = tp.cast(StreamingMultiheadAttention, self.cross_attention)
        source, mask = cross_attention_src
        context = Full() if mask is None else Keys(mask)
        return self.dropout_cross(self._attention(attention, src, source, context))

    def _attention(self, attention: StreamingMultiheadAttention, queries: torch.Tensor, keys: torch.Tensor,
                   context: Context) -> torch.Tensor:
        q, k, v = project(attention, queries, keys)
        if isinstance(context, KVCache):
            k, v = context.extend(attention, k, v)
            context = context.context
        dtype = q.dtype
        if attention.attention_as_float32:
            q, k, v = q.float(), k.float(), v.float()
        dropout = attention.dropout if attention.training else 0.0
        out = attend(q, k, v, context, backend=self.attention_backend, dropout=dropout).to(dtype)
        return projections_of(attention).out_proj(out.transpose(1, 2).flatten(2))


CachedKeysValues = dict[nn.Module, tuple[torch.Tensor, torch.Tensor]]


@dataclasses.dataclass(eq=False)
class KVCache(Context):
    """A context over cached and current columns, which caches keys and values of each layer.

    Attributes:
        context: what the current columns attend to, among all columns.
        entries: keys and values [B, H, cached columns, d] by attention module.
        frozen: use the cache without adding the current columns to it.
    """
    context: Context
    entries: CachedKeysValues = dataclasses.field(default_factory=dict)
    frozen: bool = False

    def dense(self, num_queries: int, num_keys: int, device: tp.Any = None) -> torch.Tensor:
        return self.context.dense(num_queries, num_keys, device)

    def extend(self, attention: nn.Module, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of all columns, given the current ones [B, H, columns, d].

        If the batch has fewer rows than the cache, the cache's first rows are used.
        """
        if attention in self.entries:
            cached_k, cached_v = (cached[:len(k)] for cached in self.entries[attention])
            k, v = torch.cat([cached_k, k], dim=2), torch.cat([cached_v, v], dim=2)
        if not self.frozen:
            self.entries[attention] = k, v
        return k, v


def sinusoids(positions: torch.Tensor, dim: int, max_period: float, scale: float) -> torch.Tensor:
    """Compute AudioCraft's positional embeddings: Long [B, T] -> float32 [B, T, dim]."""
    return scale * create_sin_embedding(positions[..., None], dim, max_period=max_period)


def project(attention: StreamingMultiheadAttention, queries: torch.Tensor, keys: torch.Tensor
            ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Project with AudioCraft's packed weights.

    Args:
        attention: the attention module.
        queries: [B, T, D].
        keys: [B, S, D]; the same tensor as `queries` for self-attention.
    Returns:
        q [B, H, T, d], and k and v [B, H, S, d].
    """
    holder = projections_of(attention)
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
    if attention.qk_layer_norm:
        # Autocast runs norms in float32; attention needs one dtype.
        q, k = attention.q_layer_norm(q).to(v.dtype), attention.k_layer_norm(k).to(v.dtype)
    head_dim = width // attention.num_heads
    q, k, v = (x.unflatten(-1, (-1, head_dim)) for x in (q, k, v))                 # [B, T, H, d]
    if attention.rope is not None:
        q, k = attention.rope.rotate_qk(q, k, start=0, time_dim=1)
    if attention.kv_repeat > 1:
        k, v = (x.repeat_interleave(attention.kv_repeat, dim=2) for x in (k, v))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
