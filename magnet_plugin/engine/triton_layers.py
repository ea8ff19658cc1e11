"""`layers.add_norm`, `embed` and `quantise` as one Triton kernel each; the contracts are in `layers`."""
import typing as tp

import torch

from .jit import block, jit, tl, warps
from .layers import FLOAT8_LARGEST, FLOAT8_SMALLEST


def add_norm(x: torch.Tensor, delta: tp.Optional[torch.Tensor], weight: torch.Tensor, bias: torch.Tensor, eps: float,
             dtype: torch.dtype, constant: tp.Optional[torch.Tensor] = None, rows: tp.Optional[int] = None) -> torch.Tensor:
    """Add to the residual stream in place, and normalize; see `layers.add_norm`. All tensors are contiguous."""
    _check_contiguous(x=x, delta=delta, constant=constant)
    count, length, width = x.shape
    rows = count if rows is None else rows
    result = x.new_empty(rows, length, width, dtype=dtype)
    add_norm_kernel[(length, count)](
        x, delta, constant, weight, bias, result, length, width, eps, 0 if delta is None else delta.shape[0],
        count if constant is None else count - constant.shape[0], rows, BLOCK=block(width),
        num_warps=warps(2 * block(width)))
    return result


def embed(tokens: torch.Tensor, tables: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Sum the embeddings of all codebooks and of the positions; see `layers.embed`. Tables and positions are contiguous."""
    _check_contiguous(tables=tables, positions=positions)
    batch, codebooks, length = tokens.shape
    width = positions.shape[-1]
    result = torch.empty(batch, length, width, dtype=torch.float32, device=tokens.device)
    embed_kernel[(length, batch)](
        tokens, tables, positions, result, *tokens.stride(), length, width, tables.stride(0), CODEBOOKS=codebooks,
        BLOCK=block(width), num_warps=warps(2 * block(width)))
    return result


def quantise(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise each row to float8; see `layers.quantise`. `x` is contiguous."""
    _check_contiguous(x=x)
    rows, width = x.shape
    result = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    quantise_kernel[(rows,)](x, result, scales, width, FLOAT8_LARGEST, FLOAT8_SMALLEST, BLOCK=block(width),
                             num_warps=warps(2 * block(width)))
    return result, scales


def _check_contiguous(**tensors: tp.Optional[torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, but its strides are {tensor.stride()}; call contiguous()")


@jit
def add_norm_kernel(x, delta, constant, weight, bias, result, length, width, eps, delta_rows, first_constant,
                    normed_rows, BLOCK: tl.constexpr):
    """Compute one frame of one row."""
    frame, row = tl.program_id(0), tl.program_id(1)
    channel = tl.arange(0, BLOCK)
    inside = channel < width
    place = (row.to(tl.int64) * length + frame) * width + channel
    values = tl.load(x + place, mask=inside, other=0.0)
    if delta is not None:
        values += tl.load(delta + place, mask=inside & (row < delta_rows), other=0.0).to(tl.float32)
    if constant is not None:
        values += tl.load(constant + (row - first_constant) * width + channel, mask=inside & (row >= first_constant),
                          other=0.0).to(tl.float32)
    if delta is not None or constant is not None:
        tl.store(x + place, values, mask=inside)
    if row < normed_rows:
        centred = tl.where(inside, values - tl.sum(values, 0) / width, 0.0)
        centred *= tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
        scale = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
        offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
        tl.store(result + place, (centred * scale + offset).to(result.dtype.element_ty), mask=inside)


@jit
def embed_kernel(tokens, tables, positions, result, sample_stride, codebook_stride, frame_stride, length, width, table_size,
                 CODEBOOKS: tl.constexpr, BLOCK: tl.constexpr):
    """Compute one frame of one sample."""
    frame, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < width
    values = tl.load(positions + frame * width + channel, mask=inside, other=0.0)
    for k in range(CODEBOOKS):
        token = tl.load(tokens + sample * sample_stride + k * codebook_stride + frame * frame_stride)
        values += tl.load(tables + k * table_size + token * width + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(result + (sample * length + frame) * width + channel, values, mask=inside)


@jit
def quantise_kernel(x, result, scales, width, largest, smallest, BLOCK: tl.constexpr):
    """Quantise one row."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < width
    values = tl.load(x + row * width + channel, mask=inside, other=0.0).to(tl.float32)
    scale = tl.div_rn(tl.maximum(tl.max(tl.abs(values), 0), smallest), largest)
    tl.store(scales + row, scale)
    tl.store(result + row * width + channel, tl.div_rn(values, scale).to(result.dtype.element_ty), mask=inside)
