"""Attention to the text: the projection of queries and what comes after it, as one Triton kernel on CUDA in 16 bits."""
import typing as tp

import torch

from . import layers, triton_products
from .kernels import products_available
from .linear import LinearWeights, layer_dtype, prepare_linear

TextAttention = tp.Callable[[torch.Tensor, torch.Tensor, torch.Tensor, tp.Optional[torch.Tensor]], torch.Tensor]


def prepare_text_attention(query: LinearWeights, precision: str, dtype: torch.dtype) -> TextAttention:
    """Return a function of inputs [rows, T, D], keys, values and mask, see `layers.text_attention`; it gives [rows, T, D].

    Args:
        query: projection of the queries.
        precision: see `linear.prepare_linear`; `float8` computes this layer in bfloat16, together with the attention.
        dtype: likewise.
    """
    if precision == "float8":
        precision = "bfloat16"
    inner = layer_dtype(precision, dtype)
    if precision != "int8" and products_available(query.weight.device, inner):
        query = query.to(inner)
        return lambda x, *text: triton_products.text_attention(x.to(inner), query.weight, query.bias, *text)
    project = prepare_linear(query, precision, dtype)
    return lambda x, *text: layers.text_attention(project(x), *text)
