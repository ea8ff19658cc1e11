"""The kernels that `attention.attend` chooses from. They all compute the same thing:

    torch-full, xformers-full   fused attention without a mask
    torch-causal                fused attention that skips what lies ahead
    xformers-local, torch-local flash attention that skips everything outside of the band (CUDA, float16 and bfloat16)
    torch-blocked               the band by blocks of frames, each with the keys around it: linear in T, on any device
    torch-dense, xformers-bias  a mask over all pairs of frames: any context, cost and memory quadratic in T
"""
from __future__ import annotations

import typing as tp

import torch
from torch import Tensor
from torch.nn import functional as F

from .context import Band, Context

Kernel = tp.Literal["torch-full", "torch-causal", "torch-local", "torch-blocked", "torch-dense",
                    "xformers-full", "xformers-local", "xformers-bias"]
KernelFunction = tp.Callable[[Tensor, Tensor, Tensor, Context, float], Tensor]
_MIN_BLOCK = 24  # Frames. Measured on CPU at width 5: 24 to 32 are best, 48 costs a quarter more, 96 almost half more.
_ALIGN = 8  # CUDA kernels read masks and channels in rows of a multiple of this.


def _torch_full(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def _torch_causal(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)


def _torch_dense(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    mask = context.dense(q.shape[2], k.shape[2], q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def _torch_local(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    """PyTorch's flash attention with a window, which `scaled_dot_product_attention` has no argument for.

    The ATen operator is differentiable: its gradient uses the same window and the same dropout mask.
    """
    assert isinstance(context, Band)
    seq_len, head_dim = q.shape[2:]
    out = torch.ops.aten._flash_attention_forward(
        _flash_layout(q), _flash_layout(k), _flash_layout(v), None, None, seq_len, seq_len, dropout, False, False,
        scale=head_dim ** -0.5, window_size_left=context.width, window_size_right=context.width)[0]
    return out[..., :head_dim].transpose(1, 2)


def _flash_layout(x: Tensor) -> Tensor:
    """[B, H, T, D] -> [B, T, H, D], D padded to a multiple of 8 and every row aligned to 16 bytes; a view if possible."""
    x = x.transpose(1, 2)
    padding = -x.shape[-1] % _ALIGN
    if padding:
        return F.pad(x, (0, padding))
    aligned = x.stride(-1) == 1 and not any(n % _ALIGN for n in (x.storage_offset(), *x.stride()[:-1]))
    return x if aligned else x.clone(memory_format=torch.contiguous_format)


def block_length(seq_len: int, width: int) -> int:
    """Frames per block: as many as the halo of a wide band, evened out so that the last block is almost full."""
    count = -(-seq_len // max(_MIN_BLOCK, 2 * width))
    return -(-seq_len // count)


def _torch_blocked(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    """Blocks of n queries over windows of n + 2 * width keys, N blocks side by side: cost and memory linear in T."""
    assert isinstance(context, Band)
    (batch, heads, seq_len, _), width = q.shape, context.width
    block = block_length(seq_len, width)
    count = -(-seq_len // block)
    window = block + 2 * width
    if q.is_cuda:
        window = -(-window // _ALIGN) * _ALIGN
    # SDPA's fused kernels require 4-D input, so blocks take the head dimension.
    queries = F.pad(q, (0, 0, 0, count * block - seq_len)).reshape(batch * heads, count, block, q.shape[3])
    mask = _added_block_mask(context, seq_len, block, window, q.dtype, q.device)
    keys, values = (_windows(x, width, block, window, count) for x in (k, v))
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)
    return out.reshape(batch, heads, count * block, v.shape[3])[:, :, :seq_len]


def _windows(x: Tensor, width: int, block: int, window: int, count: int) -> Tensor:
    """Cut out overlapping windows: [B, H, T, D] -> [B * H, N, window, D]; window n begins `width` frames before block n."""
    pieces = -(-window // block)
    after = (count + pieces - 1) * block - x.shape[2] - width
    padded = F.pad(x, (0, 0, width, after)).flatten(0, 1)
    if not x.is_cuda and not (x.requires_grad and torch.is_grad_enabled()):
        return padded.unfold(1, window, block).transpose(2, 3)  # a view: neighbours share memory
    # The backward pass of `unfold` is slow, and CUDA kernels may assume that rows do not overlap.
    blocks = padded.unflatten(1, (-1, block))
    return torch.cat([blocks[:, i:i + count, :window - i * block] for i in range(pieces)], dim=2)


def _added_block_mask(context: Band, seq_len: int, block: int, window: int, dtype: torch.dtype, device: torch.device
                      ) -> Tensor:
    """`_block_mask` as what is added to scores: 0 or -inf. The context keeps it, so that all layers of a pass share it."""
    def build() -> Tensor:
        allowed = _block_mask(seq_len, context.width, block, window, device)
        return torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, float("-inf"))

    if torch.compiler.is_compiling():                   # A graph cannot keep anything.
        return build()
    key = (seq_len, block, window, dtype, device)
    if key not in context.masks:
        with torch.inference_mode(False):               # A backward pass may need it.
            context.masks[key] = build()
    return context.masks[key]


def _block_mask(seq_len: int, width: int, block: int, window: int, device: torch.device) -> Tensor:
    """The band in windows: Bool [1, N, block, window]; window n begins `width` frames before block n."""
    first = torch.arange(0, seq_len, block, device=device).view(1, -1, 1, 1)
    query = first + torch.arange(block, device=device).view(1, 1, -1, 1)
    key = first - width + torch.arange(window, device=device)
    allowed = ((query - key).abs() <= width) & (key >= 0) & (key < seq_len)
    # Queries behind the clip's end are cut off later; without any key they could turn gradients into NaN.
    return allowed | (query >= seq_len)


def _xformers(q: Tensor, k: Tensor, v: Tensor, bias: tp.Any, dropout: float) -> Tensor:
    from xformers.ops import memory_efficient_attention
    out = memory_efficient_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_bias=bias, p=dropout)
    return out.transpose(1, 2)  # [B, T, H, D] -> [B, H, T, D]


def _xformers_full(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    return _xformers(q, k, v, None, dropout)


def _xformers_local(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    from xformers.ops.fmha.attn_bias import LocalAttentionFromBottomRightMask
    assert isinstance(context, Band)
    return _xformers(q, k, v, LocalAttentionFromBottomRightMask(context.width, context.width), dropout)


def _xformers_bias(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    num_queries, num_keys = q.shape[2], k.shape[2]
    allowed = context.dense(num_queries, num_keys, q.device)
    rows = -(-num_keys // _ALIGN) * _ALIGN
    bias = q.new_zeros(*allowed.shape[:-1], rows)[..., :num_keys]  # a slice: the rows' stride stays a multiple of 8
    bias.masked_fill_(~allowed, float("-inf"))
    return _xformers(q, k, v, bias.expand(q.shape[0], q.shape[1], num_queries, num_keys), dropout)


KERNELS: dict[Kernel, KernelFunction] = {
    "torch-full": _torch_full, "torch-causal": _torch_causal, "torch-local": _torch_local, "torch-blocked": _torch_blocked,
    "torch-dense": _torch_dense,
    "xformers-full": _xformers_full, "xformers-local": _xformers_local, "xformers-bias": _xformers_bias,
}
