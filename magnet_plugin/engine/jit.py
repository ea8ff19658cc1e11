"""Triton's decorator and language; stand-ins where Triton is missing, so that modules with kernels can be imported anyway.

Builds of PyTorch without CUDA come without Triton. `kernels.available` decides whether kernels run.
"""
import types
import typing as tp

try:
    import triton
    import triton.language
    jit: tp.Any = triton.jit
    tl: tp.Any = triton.language
except ImportError:
    jit = lambda function: function     # noqa: E731
    tl = types.SimpleNamespace(constexpr=object)


def block(size: int) -> int:
    """Return the length of the block that holds `size` elements: a power of two, at least a warp."""
    return max(32, 1 << (size - 1).bit_length())


def warps(elements: int) -> int:
    """Return the number of warps for a block, so that a thread holds about 16 elements: from 1 to 16."""
    return min(max(elements // 512, 1), 16)
