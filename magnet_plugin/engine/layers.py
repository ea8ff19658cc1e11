"""What the fast path does between linear layers and attention, on a float32 residual stream: PyTorch's operations.

On CUDA, `triton_layers` does the same in one kernel each.
"""
import typing as tp

import torch
from torch.nn import functional as F

FLOAT8_LARGEST = torch.finfo(torch.float8_e4m3fn).max
FLOAT8_SMALLEST = 1e-12     # Rows whose values are all smaller than this become zero, instead of dividing by it.


def embed(tokens: torch.Tensor, tables: tp.Union[torch.Tensor, tp.Sequence[torch.Tensor]], positions: torch.Tensor
          ) -> torch.Tensor:
    """Sum the embeddings of all codebooks and of the positions.

    Args:
        tokens: Long [B, K, T] with any strides.
        tables: [K, card + 1, D], any float type.
        positions: float32 [T, D].
    Returns:
        Float32 [B, T, D].
    """
    x = positions.expand(tokens.shape[0], -1, -1)
    for k, table in enumerate(tables):
        x = x + F.embedding(tokens[:, k], table)
    return x


def add(x: torch.Tensor, delta: tp.Optional[torch.Tensor], constant: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
    """Add the output of a layer's part to the residual stream in place.

    Args:
        x: residual stream, float32 [rows, T, D].
        delta: added to the first rows, any float type [rows or fewer, T, D].
        constant: added to all frames of the last rows, any float type [rows or fewer, 1, D]; with both branches it is the
            cross-attention of the unconditional branch.
    Returns:
        `x`.
    """
    if delta is not None:
        x[:len(delta)] += delta
    if constant is not None:
        x[len(x) - len(constant):] += constant
    return x


def add_norm(x: torch.Tensor, delta: tp.Optional[torch.Tensor], weight: torch.Tensor, bias: torch.Tensor, eps: float,
             dtype: torch.dtype, constant: tp.Optional[torch.Tensor] = None, rows: tp.Optional[int] = None) -> torch.Tensor:
    """Run `add`, and normalize the sum for the next part of the layer.

    Args:
        x, delta, constant: see `add`; `x` is changed in place.
        weight: scale of the layer norm, float32 [D].
        bias: offset of the layer norm, float32 [D].
        eps: of the layer norm.
        dtype: of the result.
        rows: how many rows to normalize, the first ones; None normalizes all of them.
    Returns:
        [rows, T, D] of type `dtype`.
    """
    return F.layer_norm(add(x, delta, constant)[:rows], weight.shape, weight, bias, eps).to(dtype)


def quantise(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise each row to float8 so that its largest value becomes the largest of the type.

    Args:
        x: [rows, channels], any float type.
    Returns:
        float8_e4m3fn [rows, channels], and the float32 scales [rows, 1] by which it is to be multiplied.
    """
    values = x.float()
    scales = values.abs().amax(dim=1, keepdim=True).clamp_min(FLOAT8_SMALLEST) / FLOAT8_LARGEST
    return (values / scales).to(torch.float8_e4m3fn), scales


def text_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: tp.Optional[torch.Tensor]
                   ) -> torch.Tensor:
    """Attend to the text.

    Args:
        queries: [rows, T, D].
        keys: [rows, H, S, d].
        values: likewise.
        mask: added to the scores, [rows or 1, 1, 1, S]; None without one.
    Returns:
        [rows, T, D].
    """
    q = queries.unflatten(-1, (keys.shape[1], -1)).transpose(1, 2)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)
