"""Restricted context: which frames a frame may look at, as a value, and the kernels that compute it (section 3.3).

EnCodec's later codebooks depend on a few frames around them, so the model looks at the whole clip for the first
codebook (`Full`) and at a narrow band for the others (`Band`). `attend` turns such a value into one of these kernels:

    torch-full, xformers-full   fused attention without a mask
    xformers-local              flash attention that skips what lies outside of the band (CUDA, float16 and bfloat16)
    torch-blocked               the band by blocks of frames, each with the keys around it: linear in T, on any device
    torch-dense, xformers-bias  a mask over all pairs of frames: every context, cost and memory quadratic in T

They compute the same thing. What cannot run raises, and nothing is replaced by a different mask.
"""
from __future__ import annotations

import logging
import typing as tp
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

logger = logging.getLogger(__name__)

Kernel = tp.Literal["torch-full", "torch-blocked", "torch-dense", "xformers-full", "xformers-local", "xformers-bias"]
BACKENDS = ("auto", "torch", "xformers")
_MIN_BLOCK = 24  # frames; measured on CPU at width 5: 24 to 32 are best, 48 costs a quarter more, 96 almost half more
_ALIGN = 8  # CUDA kernels read masks in rows of a multiple of this
# What xformers raises where its build does not fit torch or the GPU.
_BROKEN = (ImportError, OSError, RuntimeError, ValueError, AttributeError)
_announced: set[tuple[str, torch.dtype, str]] = set()


class Context(ABC):
    """Which keys each query may attend to. New contexts need no more than `dense`."""

    @abstractmethod
    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> Tensor:
        """Bool [T_q, T_k], True = attend; leading dimensions that broadcast with [B, H] are allowed."""

    def reduced(self, num_queries: int, num_keys: int) -> Context:
        """The simplest context that means the same for these lengths."""
        return self


@dataclass(frozen=True)
class Full(Context):
    """Every query attends to every key; self- and cross-attention."""

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> Tensor:
        return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)


@dataclass(frozen=True)
class Band(Context):
    """Frame t attends to the frames s with |t - s| <= width, on both sides; self-attention only.

    Raises:
        ValueError: if `width` is negative, or on use, if there are not as many keys as queries.
    """
    width: int

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ValueError(f"Band.width counts frames to either side and cannot be negative, got {self.width}.")

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> Tensor:
        self._check(num_queries, num_keys)
        frame = torch.arange(num_queries, device=device)
        return (frame.unsqueeze(1) - frame).abs() <= self.width

    def reduced(self, num_queries: int, num_keys: int) -> Context:
        self._check(num_queries, num_keys)
        return Full() if self.width >= num_queries - 1 else self

    @staticmethod
    def _check(num_queries: int, num_keys: int) -> None:
        if num_queries != num_keys:
            raise ValueError(f"Band is for self-attention, got {num_queries} queries and {num_keys} keys.")


def attend(q: Tensor, k: Tensor, v: Tensor, context: Context, backend: str = "auto", dropout: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over the keys that `context` allows.

    Args:
        q: queries [B, H, T, D], any strides.
        k: keys [B, H, T_k, D], of q's dtype and device (autocast does not reach all kernels).
        v: values [B, H, T_k, D], likewise.
        context: what each query may look at.
        backend: "auto", "torch" or "xformers", see `choose`.
        dropout: chance of dropping an attention weight; give 0 outside of training.
    Returns:
        [B, H, T, D], of q's dtype.
    Raises:
        ValueError: if the backend cannot run this, or if the tensors' dtypes or devices differ.
    """
    if not (q.dtype == k.dtype == v.dtype and q.device == k.device == v.device):
        raise ValueError("q, k and v must have one dtype and one device, got "
                         + ", ".join(f"{x.dtype} on {x.device}" for x in (q, k, v)) + ".")
    context = context.reduced(q.shape[2], k.shape[2])
    kernel = choose(context, q.device, q.dtype, backend, q.shape[2], q.shape[3])
    return _KERNELS[kernel](q, k, v, context, dropout)


def choose(context: Context, device: torch.device | str, dtype: torch.dtype, backend: str = "auto",
           seq_len: int = 1500, head_dim: int = 64) -> Kernel:
    """The kernel that `attend` runs.

    "auto" takes xformers on CUDA in float16 and bfloat16 where one of its operators accepts the context as such, and
    torch otherwise; it logs its choice once for each kind of device, dtype and context.

    Args:
        context: what each query may look at.
        device: where the tensors lie.
        dtype: their dtype.
        backend: "auto", "torch" or "xformers" (the config's `efficient_attention_backend`).
        seq_len: frames T; decides whether blocks of a band pay.
        head_dim: channels of a head, D; some operators want a multiple of 8.
    Raises:
        ValueError: if the backend is unknown or cannot run this; says what to set.
    """
    device = torch.device(device)
    if backend not in BACKENDS:
        raise ValueError(f"efficient_attention_backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    if not dtype.is_floating_point:
        raise ValueError(f"attention needs a floating-point dtype, got {dtype}.")
    context = context.reduced(seq_len, seq_len)
    if backend == "xformers":
        return _choose_xformers(context, device, dtype, head_dim)
    kernel = _choose_torch(context, seq_len)
    if backend == "auto":
        native: Kernel = "xformers-full" if isinstance(context, Full) else "xformers-local"
        if (isinstance(context, Full | Band) and device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
                and _refusal(native, device, dtype, head_dim) is None):
            kernel = native
        _announce(kernel, context, device, dtype)
    return kernel


def available_backends() -> tuple[str, ...]:
    """The values of `efficient_attention_backend` that can be imported here; "auto" and "torch" always can.

    Whether xformers has an operator for a given device and dtype is up to `choose`.
    """
    try:
        import xformers.ops  # noqa: F401
    except _BROKEN:
        return "auto", "torch"
    return BACKENDS


def _choose_torch(context: Context, seq_len: int) -> Kernel:
    if isinstance(context, Full):
        return "torch-full"
    if isinstance(context, Band) and _block(seq_len, context.width) + 2 * context.width < seq_len:
        return "torch-blocked"
    return "torch-dense"


def _choose_xformers(context: Context, device: torch.device, dtype: torch.dtype, head_dim: int) -> Kernel:
    candidates: list[Kernel] = ["xformers-bias"]
    if isinstance(context, Full):
        candidates = ["xformers-full"]
    elif isinstance(context, Band):
        candidates = ["xformers-local", "xformers-bias"]
    reasons = [_refusal(kernel, device, dtype, head_dim) for kernel in candidates]
    for kernel, reason in zip(candidates, reasons, strict=True):
        if reason is None:
            return kernel
    raise ValueError(f"efficient_attention_backend=xformers cannot run {context} on {device.type} in {dtype} "
                     f"({reasons[-1]}). Set efficient_attention_backend=auto, which takes torch here, or use a CUDA "
                     "device with dtype float16 or bfloat16.")


def _announce(kernel: Kernel, context: Context, device: torch.device, dtype: torch.dtype) -> None:
    key = (device.type, dtype, type(context).__name__)
    if key not in _announced:
        _announced.add(key)
        logger.info("efficient_attention_backend=auto: %s runs %s attention on %s in %s", kernel, key[2], key[0], dtype)


def _refusal(kernel: Kernel, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why xformers does not run this kernel, None where it does."""
    if device.type != "cuda":
        return f"xformers has no operators for {device.type}"
    if not torch.cuda.is_available():
        return "no CUDA device"
    return _try_xformers(kernel, device, dtype, head_dim, torch.are_deterministic_algorithms_enabled())


@cache
def _try_xformers(kernel: Kernel, device: torch.device, dtype: torch.dtype, head_dim: int,
                  deterministic: bool) -> str | None:
    """Runs a few frames forward and backward: what xformers accepts depends on its build, the GPU and torch's flags."""
    context = Full() if kernel == "xformers-full" else Band(1)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(1, 1, 16, head_dim, device=device, dtype=dtype, requires_grad=True)
            _KERNELS[kernel](x, x, x, context, 0.0).sum().backward()
    except torch.cuda.OutOfMemoryError:
        raise
    except _BROKEN as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    return None


def _torch_full(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def _torch_dense(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    mask = context.dense(q.shape[2], k.shape[2], q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def _block(seq_len: int, width: int) -> int:
    """Frames per block: as many as the halo of a wide band, evened out so that the last block is almost full."""
    count = -(-seq_len // max(_MIN_BLOCK, 2 * width))
    return -(-seq_len // count)


def _torch_blocked(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    """Blocks of n queries over windows of n + 2 * width keys, N blocks side by side: cost and memory linear in T."""
    assert isinstance(context, Band)
    (batch, heads, seq_len, _), width = q.shape, context.width
    block = _block(seq_len, width)
    count = -(-seq_len // block)
    window = block + 2 * width
    if q.is_cuda:
        window = -(-window // _ALIGN) * _ALIGN
    after = (count - 1) * block + window - width - seq_len  # frames that the last window reaches beyond the clip

    def windows(x: Tensor) -> Tensor:  # [B, H, T, D] -> [B * H, N, window, D]
        padded = F.pad(x, (0, 0, width, after)).flatten(0, 1)
        view = padded.unfold(1, window, block).transpose(2, 3)  # neighbours share their halo's memory
        return view.contiguous() if x.is_cuda else view  # CUDA kernels may assume that rows do not overlap

    # Four dimensions, as torch's fused kernels take no others: the blocks stand in the place of the heads.
    queries = F.pad(q, (0, 0, 0, count * block - seq_len)).reshape(batch * heads, count, block, q.shape[3])
    mask = _block_mask(seq_len, width, block, window, q.device)  # [1, N, block, window]
    out = F.scaled_dot_product_attention(queries, windows(k), windows(v), attn_mask=mask, dropout_p=dropout)
    return out.reshape(batch, heads, count * block, v.shape[3])[:, :, :seq_len]


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


_KERNELS: dict[Kernel, tp.Callable[[Tensor, Tensor, Tensor, Context, float], Tensor]] = {
    "torch-full": _torch_full, "torch-blocked": _torch_blocked, "torch-dense": _torch_dense,
    "xformers-full": _xformers_full, "xformers-local": _xformers_local, "xformers-bias": _xformers_bias,
}
