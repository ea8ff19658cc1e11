"""Attention under a context, and the choice of the kernel that computes it (section 3.2).

`attend` turns a `Context` into one of the kernels of `attention_kernels.py`. They compute the same thing. A kernel that
cannot run raises an error; a context is never replaced by another one.
"""
from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

from .attention_kernels import KERNELS, Kernel, block_length
from .context import Band, Context, Full

logger = logging.getLogger(__name__)
BACKENDS = ("auto", "torch", "xformers")
# What xformers raises if its build does not fit torch or the GPU.
_XFORMERS_ERRORS = (ImportError, OSError, RuntimeError, ValueError, AttributeError)
_logged: set[tuple[str, torch.dtype, str]] = set()


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
    context = context.reduced(q.shape[2], k.shape[2])
    kernel = choose(context, q.device, q.dtype, backend, q.shape[2], q.shape[3])
    return KERNELS[kernel](q, k, v, context, dropout)


def choose(context: Context, device: torch.device | str, dtype: torch.dtype, backend: str = "auto",
           seq_len: int = 1500, head_dim: int = 64) -> Kernel:
    """Choose the kernel that `attend` runs.

    "auto" chooses xformers on CUDA in float16 and bfloat16 if one of its operators supports the context directly, and torch
    otherwise. The choice is logged once for each device type, dtype and context type.

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
        native: Kernel = "xformers-full" if isinstance(context, Full) else "xformers-local"
        if (isinstance(context, Full | Band) and device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
                and _unsupported_reason(native, device, dtype, head_dim) is None):
            kernel = native
        _log_choice(kernel, context, device, dtype)
    return kernel


def available_backends() -> tuple[str, ...]:
    """Return the values of `efficient_attention_backend` whose library can be imported here.

    Whether xformers has an operator for a device and dtype is decided by `choose`.
    """
    try:
        import xformers.ops  # noqa: F401
    except _XFORMERS_ERRORS:
        return "auto", "torch"
    return BACKENDS


def _choose_torch(context: Context, seq_len: int) -> Kernel:
    if isinstance(context, Full):
        return "torch-full"
    if isinstance(context, Band) and block_length(seq_len, context.width) + 2 * context.width < seq_len:
        return "torch-blocked"
    return "torch-dense"


def _choose_xformers(context: Context, device: torch.device, dtype: torch.dtype, head_dim: int) -> Kernel:
    candidates: list[Kernel] = ["xformers-bias"]
    if isinstance(context, Full):
        candidates = ["xformers-full"]
    elif isinstance(context, Band):
        candidates = ["xformers-local", "xformers-bias"]
    reasons = [_unsupported_reason(kernel, device, dtype, head_dim) for kernel in candidates]
    for kernel, reason in zip(candidates, reasons, strict=True):
        if reason is None:
            return kernel
    raise ValueError(f"efficient_attention_backend=xformers cannot run {context} on {device.type} in {dtype} "
                     f"({reasons[-1]}); set efficient_attention_backend=auto, which uses torch here, or use a CUDA "
                     "device with dtype float16 or bfloat16")


def _log_choice(kernel: Kernel, context: Context, device: torch.device, dtype: torch.dtype) -> None:
    key = (device.type, dtype, type(context).__name__)
    if key not in _logged:
        _logged.add(key)
        logger.info("efficient_attention_backend=auto: %s runs %s attention on %s in %s", kernel, key[2], key[0], dtype)


def _unsupported_reason(kernel: Kernel, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Return why xformers does not run this kernel, or None if it does."""
    if device.type != "cuda":
        return f"xformers has no operators for {device.type}"
    if not torch.cuda.is_available():
        return "no CUDA device"
    return _try_xformers(kernel, device, dtype, head_dim, torch.are_deterministic_algorithms_enabled())


@cache
def _try_xformers(kernel: Kernel, device: torch.device, dtype: torch.dtype, head_dim: int,
                  deterministic: bool) -> str | None:
    """Run a few frames forward and backward: what xformers supports depends on its build, the GPU and torch's flags."""
    context = Full() if kernel == "xformers-full" else Band(1)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(1, 1, 16, head_dim, device=device, dtype=dtype, requires_grad=True)
            KERNELS[kernel](x, x, x, context, 0.0).sum().backward()
    except torch.cuda.OutOfMemoryError:
        raise
    except _XFORMERS_ERRORS as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    return None
