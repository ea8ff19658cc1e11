"""Matrix products as Triton kernels that go on with their result: an activation, or attention to the text.

cuBLAS is faster at the product itself but cannot go on; each of these kernels replaces one of its products and the kernel
after it. Inputs are float16 or bfloat16, sums are float32.
"""
import typing as tp

import torch

from .jit import block, jit, tl

_DEPTH = 64         # Channels of the inputs in one step of a product.
_PROCESSORS = 100   # Large tiles are used if there are this many: about one for each processor of a data centre's GPU.


def linear(x: torch.Tensor, weight: torch.Tensor, bias: tp.Optional[torch.Tensor], activation: str,
           tile: tp.Optional[int] = None) -> torch.Tensor:
    """Compute a linear layer and its activation.

    Args:
        x: inputs [..., in], contiguous.
        weight: [out, in], contiguous, of the same dtype.
        bias: [out] or None.
        activation: `none`, `relu` or `gelu`.
        tile: rows and outputs that one program computes, 64 or 128; by default, what suits the size.
    Returns:
        [..., out].
    """
    _check_contiguous(x=x, weight=weight)
    outputs, inputs = weight.shape
    rows = x.numel() // inputs
    result = x.new_empty(*x.shape[:-1], outputs)
    if tile is None:
        tile = 128 if -(-rows // 128) * -(-outputs // 128) >= _PROCESSORS else 64
    linear_kernel[(-(-rows // tile) * -(-outputs // tile),)](
        x, weight, bias, result, rows, outputs, inputs, ACTIVATION=activation, ROWS=tile, OUTPUTS=tile, DEPTH=_DEPTH,
        num_warps=8 if tile == 128 else 4, num_stages=3)
    return result


def text_attention(x: torch.Tensor, weight: torch.Tensor, bias: tp.Optional[torch.Tensor], keys: torch.Tensor,
                   values: torch.Tensor, mask: tp.Optional[torch.Tensor]) -> torch.Tensor:
    """Project queries and attend to the text; all tensors but the mask are contiguous and of one dtype.

    Args:
        x: inputs of the queries [rows, T, D].
        weight: of the projection, [D, D].
        bias: of the projection, [D] or None.
        keys: [rows, H, S, d].
        values: likewise.
        mask: added to the scores, any float type [rows or 1, 1, 1, S]; None without one.
    Returns:
        [rows, T, D], the heads side by side.
    """
    _check_contiguous(x=x, weight=weight, keys=keys, values=values)
    rows, length, width = x.shape
    heads, texts, head_dim = keys.shape[1:]
    result = torch.empty_like(x)
    strides = (0, 0) if mask is None else (0 if mask.shape[0] == 1 else mask.stride(0), mask.stride(-1))
    frames = 64 if length > 16 else 16      # Of autoregressive steps there is one.
    text_attention_kernel[(-(-length // frames), heads, rows)](
        x, weight, bias, keys, values, mask, result, length, width, texts, *strides, head_dim ** -0.5, HEAD=head_dim,
        FRAMES=frames, CHANNELS=block(head_dim), TEXTS=64, DEPTH=_DEPTH, num_warps=4, num_stages=3)
    return result


def _check_contiguous(**tensors: torch.Tensor) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, but its strides are {tensor.stride()}; call contiguous()")


@jit
def linear_kernel(x, weight, bias, result, rows, outputs, inputs, ACTIVATION: tl.constexpr, ROWS: tl.constexpr,
                  OUTPUTS: tl.constexpr, DEPTH: tl.constexpr):
    """Compute one tile of the outputs. Neighbours in time share inputs: eight tiles of rows for one of outputs."""
    tiles = tl.cdiv(rows, ROWS)
    group = tl.program_id(0) // (8 * tl.cdiv(outputs, OUTPUTS))
    place = tl.program_id(0) - 8 * group * tl.cdiv(outputs, OUTPUTS)
    size = tl.minimum(tiles - 8 * group, 8)
    row = (8 * group + place % size) * ROWS + tl.arange(0, ROWS)
    output = (place // size) * OUTPUTS + tl.arange(0, OUTPUTS)
    values = product(x, weight, row, output, row < rows, output < outputs, inputs, ROWS, OUTPUTS, DEPTH)
    if bias is not None:
        values += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)[None, :]
    if ACTIVATION == "relu":
        values = tl.maximum(values, 0.0)
    if ACTIVATION == "gelu":
        values = 0.5 * values * (1 + tl.erf(values * 0.7071067811865476))
    tl.store(result + row.to(tl.int64)[:, None] * outputs + output[None, :], values.to(result.dtype.element_ty),
             mask=(row < rows)[:, None] & (output < outputs)[None, :])


@jit
def text_attention_kernel(x, weight, bias, keys, values, mask, result, length, width, texts, mask_row_stride,
                          mask_text_stride, scale, HEAD: tl.constexpr, FRAMES: tl.constexpr, CHANNELS: tl.constexpr,
                          TEXTS: tl.constexpr, DEPTH: tl.constexpr):
    """Compute some frames of one head of one row, over blocks of the text with a running softmax."""
    frame = tl.program_id(0) * FRAMES + tl.arange(0, FRAMES)
    head, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    channel = tl.arange(0, CHANNELS)
    output = head * HEAD + channel
    here, used = frame < length, channel < HEAD
    dtype = result.dtype.element_ty
    q = product(x + row * length * width, weight, frame, output, here, used, width, FRAMES, CHANNELS, DEPTH)
    if bias is not None:
        q += tl.load(bias + output, mask=used, other=0.0).to(tl.float32)[None, :]
    q = q.to(dtype)
    first = (row * tl.num_programs(1) + head) * texts * HEAD
    largest = tl.full((FRAMES,), -1e30, tl.float32)
    total = tl.zeros((FRAMES,), tl.float32)
    attended = tl.zeros((FRAMES, CHANNELS), tl.float32)
    for start in range(0, texts, TEXTS):
        text = start + tl.arange(0, TEXTS)
        place = first + text[:, None] * HEAD + channel[None, :]
        present = (text < texts)[:, None] & used[None, :]
        scores = tl.dot(q, tl.trans(tl.load(keys + place, mask=present, other=0.0))) * scale
        if mask is not None:
            scores += tl.load(mask + row * mask_row_stride + text * mask_text_stride, mask=text < texts,
                              other=0.0).to(tl.float32)[None, :]
        scores = tl.where((text < texts)[None, :], scores, float("-inf"))
        highest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp(scores - highest[:, None])
        shrink = tl.exp(largest - highest)
        total = total * shrink + tl.sum(weights, 1)
        attended = tl.dot(weights.to(dtype), tl.load(values + place, mask=present, other=0.0), attended * shrink[:, None])
        largest = highest
    tl.store(result + (row * length + frame)[:, None] * width + output[None, :], (attended / total[:, None]).to(dtype),
             mask=here[:, None] & used[None, :])


@jit
def product(left, right, row, column, row_inside, column_inside, depth, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
            DEPTH: tl.constexpr):
    """Multiply some rows of `left` [..., depth] by some rows of `right` [..., depth]: float32 [ROWS, COLUMNS]."""
    k = tl.arange(0, DEPTH)
    left += row.to(tl.int64)[:, None] * depth + k[None, :]
    right += column.to(tl.int64)[None, :] * depth + k[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, depth, DEPTH):
        inside = start + k < depth
        total = tl.dot(tl.load(left + start, mask=row_inside[:, None] & inside[None, :], other=0.0),
                       tl.load(right + start, mask=inside[:, None] & column_inside[None, :], other=0.0), total)
    return total
