"""Decide which attention kernels can be used on a device, by running them.

What a kernel supports depends on the GPU, on the builds of torch and xformers, and on torch's settings. Each kernel is
therefore run once on random frames, forward and backward, and compared with a dense mask in float64.
"""
from __future__ import annotations

import importlib.metadata
import logging
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from .attention_kernels import KERNELS, Kernel, KernelFunction
from .context import Band, Context, Full

logger = logging.getLogger(__name__)
#: What importing or calling a library raises if its build does not fit torch or the GPU.
LIBRARY_ERRORS = (ImportError, OSError, RuntimeError, ValueError, TypeError, AttributeError)
HALF = (torch.float16, torch.bfloat16)
#: Largest error of an output whose values are near 1: a few roundings of the dtype. Gradients may err by four times as much.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
#: What replaces xformers.
REPLACEMENT = ("PyTorch's kernels are used instead: torch-full for the full context, torch-local for a band (torch-blocked "
               "in float32 and on GPUs without torch-local)")
_FRAMES, _WIDTH = 64, 5


def unsupported_reason(kernel: Kernel, device: torch.device | str, dtype: torch.dtype, head_dim: int) -> str | None:
    """Return why a kernel cannot be used, or None if it can.

    A kernel is run once for each device, dtype, head dimension and setting of `torch.use_deterministic_algorithms`.

    Args:
        kernel: the kernel.
        device: the tensors' device.
        dtype: the tensors' dtype.
        head_dim: channels D of a head.
    """
    device = torch.device(device)
    if kernel == "torch-local" or kernel.startswith("xformers"):
        if device.type != "cuda":
            return f"{kernel} has no implementation for {device.type}"
        if not torch.cuda.is_available():
            return "no CUDA device"
    if kernel in ("torch-local", "xformers-local") and dtype not in HALF:
        return f"{kernel} needs float16 or bfloat16"
    if kernel.startswith("xformers") and (mismatch := xformers_mismatch()):
        return mismatch[0]
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return _run(kernel, device, dtype, head_dim, torch.are_deterministic_algorithms_enabled())


@cache
def xformers_mismatch() -> tuple[str, str] | None:
    """Return what is wrong and the remedy if xformers is installed but was not built for this torch, otherwise None."""
    if torch.version.cuda is None:  # a torch for CPUs or AMD GPUs
        return None
    try:
        version = importlib.metadata.version("xformers")
    except importlib.metadata.PackageNotFoundError:
        return None
    remedy = (f"to use xformers, install its release for torch {torch.__version__.partition('+')[0]} and CUDA "
              f"{torch.version.cuda}, see https://github.com/facebookresearch/xformers#installing-xformers")
    problem = f"xformers {version} does not fit torch {torch.__version__}"
    try:
        from xformers.ops.fmha import common
    except LIBRARY_ERRORS as error:
        return f"{problem} ({_in_one_line(error)})", remedy
    if getattr(common, "_built_with_cuda", True):
        return None
    return f"{problem}: its CUDA extension cannot be loaded", remedy


@cache
def _run(kernel: Kernel, device: torch.device, dtype: torch.dtype, head_dim: int, deterministic: bool) -> str | None:
    """Run a kernel and return why it is refused: its error, or how far it is from the dense mask."""
    context = Full() if kernel.endswith("-full") else Band(_WIDTH)
    generator = torch.Generator("cpu").manual_seed(0)  # torch's own random state must not change
    try:
        # The caller may have switched on autocast, inference mode or a dispatch mode such as FakeTensorMode.
        with (_disable_current_modes(), torch.inference_mode(False),  # which enables gradients too
              torch.autocast(device.type, enabled=False), torch.autocast("cpu", enabled=False)):
            q, k, v, weight = torch.randn(4, 2, _FRAMES, 2, head_dim, generator=generator, device="cpu",
                                          dtype=torch.float32).to(dtype).transpose(2, 3)  # [B, H, T, D] each
            ours = _results(KERNELS[kernel], [x.to(device) for x in (q, k, v, weight)], context)
            exact = _results(_dense, [x.double() for x in (q, k, v, weight)], context)
            difference = _difference(ours, exact, TOLERANCES[dtype])
    except torch.cuda.OutOfMemoryError:
        raise
    except LIBRARY_ERRORS as error:
        return f"{type(error).__name__}: {_in_one_line(error)}"
    if difference:
        logger.warning("The attention kernel %s gives wrong results on %s in %s: %s", kernel, device, dtype, difference)
    return difference


def _dense(q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=context.dense(q.shape[2], k.shape[2], q.device))


def _results(run: KernelFunction, tensors: list[Tensor], context: Context) -> list[Tensor]:
    """Return the output and the gradients of q, k and v, in float64 on the CPU; `tensors` are q, k, v and the output's."""
    q, k, v = (x.detach().requires_grad_() for x in tensors[:3])
    out = run(q, k, v, context, 0.0)
    return [x.detach().cpu().double() for x in (out, *torch.autograd.grad(out, (q, k, v), tensors[3]))]


def _difference(ours: list[Tensor], exact: list[Tensor], tolerance: float) -> str | None:
    names = ("output", "gradient of q", "gradient of k", "gradient of v")
    for name, one, other in zip(names, ours, exact, strict=True):
        error = (one - other).abs().max().item()
        allowed = tolerance * max(1.0, other.abs().max().item()) * (1 if name == "output" else 4)
        if not error <= allowed:  # NaN too
            return f"its {name} differs from that of a dense mask by {error:.2g}, more than {allowed:.2g}"
    return None


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
