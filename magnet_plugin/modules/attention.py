"""Attention under a context, and the choice of the kernel that computes it (section 3.2).

`attend` turns a `Context` into one of the kernels of `attention_kernels.py`. They compute the same thing. A kernel that
cannot run raises an error; a context is never replaced by another one.
"""
from __future__ import annotations

import logging
import typing as tp

import torch
from torch import Tensor

from .attention_kernels import KERNELS, Kernel, block_length
from .attention_probe import HALF, LIBRARY_ERRORS, REPLACEMENT, unsupported_reason, xformers_mismatch
from .context import Band, Causal, Context, Full

logger = logging.getLogger(__name__)
BACKENDS = ("auto", "torch", "xformers")
_logged: set[tp.Hashable] = set()


def attend(q: Tensor, k: Tensor, v: Tensor, context: Context, backend: str = "auto", dropout: float = 0.0) -> Tensor:
    """Compute softmax(q k^T / sqrt(D)) v over the keys that `context` allows.

    Args:
        q: queries [B, H, T, D], any strides.
        k: keys [B, H, T_k, D], of q's dtype and device (autocast does not reach all kernels).
        v: values [B, H, T_k, D], likewise.
        context: which keys each query may attend to.
        backend: "auto", "torch" or "xformers", see `choose`.
        dropout: probability of dropping an attention weight; 0 outside of training.
    Returns:
        [B, H, T, D], of q's dtype.
    Raises:
        ValueError: the backend cannot run this, or the tensors' dtypes or devices differ.
    """
    if not (q.dtype == k.dtype == v.dtype and q.device == k.device == v.device):
        raise ValueError("q, k and v must have one dtype and one device, got "
                         + ", ".join(f"{x.dtype} on {x.device}" for x in (q, k, v)))
    if _trains_faster_in_float32(q):
        with torch.autocast("cpu", enabled=False):      # It would cast the arguments back.
            return attend(q.float(), k.float(), v.float(), context, backend, dropout).to(q.dtype)
    context = context.reduced(q.shape[2], k.shape[2])
    kernel = choose(context, q.device, q.dtype, backend, q.shape[2], q.shape[3])
    return KERNELS[kernel](q, k, v, context, dropout)


def choose(context: Context, device: torch.device | str, dtype: torch.dtype, backend: str = "auto",
           seq_len: int = 1500, head_dim: int = 64) -> Kernel:
    """Choose the kernel that `attend` runs.

    "auto" chooses the first of `fast_kernels` that gives correct results here, and otherwise what "torch" chooses: the
    kernels behind `scaled_dot_product_attention`, which run anywhere. The choice is logged once for each device type, dtype
    and context type.

    Args:
        context: which keys each query may attend to.
        device: the tensors' device.
        dtype: the tensors' dtype.
        backend: "auto", "torch" or "xformers" (the config's `efficient_attention_backend`).
        seq_len: frames T; decides whether blocks of a band are worthwhile.
        head_dim: channels D of a head; some operators need a multiple of 8.
    Raises:
        ValueError: the backend is unknown or cannot run this; the message says what to set.
    """
    device = torch.device(device)
    if backend not in BACKENDS:
        raise ValueError(f"efficient_attention_backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if not dtype.is_floating_point:
        raise ValueError(f"attention needs a floating-point dtype, got {dtype}")
    context = context.reduced(seq_len, seq_len)
    if backend == "xformers":
        return _choose_xformers(context, device, dtype, head_dim)
    kernel = _choose_torch(context, seq_len)
    if backend == "auto":
        fast = fast_kernels(context, device, dtype)
        kernel = next((one for one in fast if unsupported_reason(one, device, dtype, head_dim) is None), kernel)
        _log_choice(kernel, context, device, dtype)
    return kernel


def fast_kernels(context: Context, device: torch.device | str, dtype: torch.dtype) -> tuple[Kernel, ...]:
    """Return the kernels that "auto" tries first, in this order: those made for CUDA in float16 and bfloat16."""
    if torch.device(device).type != "cuda" or dtype not in HALF:
        return ()
    if isinstance(context, Full):
        return ("xformers-full",)
    return ("xformers-local", "torch-local") if isinstance(context, Band) else ()


def available_backends() -> tuple[str, ...]:
    """Return the values of `efficient_attention_backend` whose library can be imported here.

    Whether xformers has an operator for a device and dtype is decided by `choose`.
    """
    try:
        import xformers.ops  # noqa: F401
    except LIBRARY_ERRORS:
        return "auto", "torch"
    return BACKENDS


def _trains_faster_in_float32(q: Tensor) -> bool:
    """Whether to compute in float32: the backward pass of torch's CPU kernels takes two to five times as long in 16 bits."""
    return q.device.type == "cpu" and q.dtype.itemsize == 2 and torch.is_grad_enabled() and q.requires_grad


def _choose_torch(context: Context, seq_len: int) -> Kernel:
    if isinstance(context, Full):
        return "torch-full"
    if isinstance(context, Causal):
        return "torch-causal"
    if isinstance(context, Band) and block_length(seq_len, context.width) + 2 * context.width < seq_len:
        return "torch-blocked"
    return "torch-dense"


def _choose_xformers(context: Context, device: torch.device, dtype: torch.dtype, head_dim: int) -> Kernel:
    candidates: list[Kernel] = ["xformers-bias"]
    if isinstance(context, Full):
        candidates = ["xformers-full"]
    elif isinstance(context, Band):
        candidates = ["xformers-local", "xformers-bias"]
    reasons = [unsupported_reason(kernel, device, dtype, head_dim) for kernel in candidates]
    for kernel, reason in zip(candidates, reasons, strict=True):
        if reason is None:
            return kernel
    raise ValueError(f"efficient_attention_backend=xformers cannot run {context} on {device.type} in {dtype} "
                     f"({reasons[-1]}); set efficient_attention_backend=auto, which uses torch here, or use a CUDA "
                     "device with dtype float16 or bfloat16")


def _log_choice(kernel: Kernel, context: Context, device: torch.device, dtype: torch.dtype) -> None:
    if device.type == "cuda" and dtype in HALF and (mismatch := xformers_mismatch()):
        problem, remedy = mismatch
        _log_once("mismatch", logging.WARNING, "%s. %s; %s", problem, REPLACEMENT, remedy)
    name = type(context).__name__
    _log_once((device.type, dtype, name), logging.INFO,
              "efficient_attention_backend=auto: %s runs %s attention on %s in %s", kernel, name, device.type, dtype)


def _log_once(key: tp.Hashable, level: int, message: str, *args: object) -> None:
    if key not in _logged:
        _logged.add(key)
        logger.log(level, message, *args)
