"""Linear layers for inference, with weights prepared once. Most of the decoding time is spent here.

On a CPU, oneDNN multiplies with packed weights, reordered for the processor, and fuses the activation. On CUDA in 16 bits,
Triton fuses the activation. Otherwise, and if this build of torch lacks the operator, torch's own linear layer is used; it
gives the same numbers up to the order of summation.
"""
import dataclasses
import logging
import typing as tp
from functools import cache

import torch
from torch.nn import functional as F

from . import float8, triton_products
from .kernels import products_available

logger = logging.getLogger(__name__)
LinearLayer = tp.Callable[[torch.Tensor], torch.Tensor]
_FEW_ROWS = 3       # Measured in float32: up to so many rows, unpacked weights are 1.2 to 3 times as fast as packed ones.
ACTIVATIONS: dict[str, tp.Callable[[torch.Tensor], torch.Tensor]] = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}


@dataclasses.dataclass(frozen=True)
class LinearWeights:
    """Weight [out, in] and bias [out] or None."""
    weight: torch.Tensor
    bias: tp.Optional[torch.Tensor] = None

    def scaled(self, scale: torch.Tensor) -> "LinearWeights":
        """Multiply the output by `scale` [out]."""
        return LinearWeights(self.weight * scale[:, None], None if self.bias is None else self.bias * scale)

    def split(self, sizes: tp.Sequence[int]) -> list["LinearWeights"]:
        """Split along the outputs."""
        biases = [None] * len(sizes) if self.bias is None else self.bias.split(list(sizes))
        return [LinearWeights(weight, bias) for weight, bias in zip(self.weight.split(list(sizes)), biases)]

    def to(self, dtype: torch.dtype) -> "LinearWeights":
        """Convert to another dtype."""
        return LinearWeights(self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))


def prepare_linear(linear: LinearWeights, precision: str, dtype: torch.dtype, activation: str = "none") -> LinearLayer:
    """Return a function [..., in] -> [..., out]. Its output has the dtype that `layer_dtype` returns.

    Args:
        linear: the weights.
        precision: `model` computes in `dtype`; `bfloat16` or `float16` in that type; `int8` uses 8-bit weights with a scale
            for each output and quantises inputs on the fly (CPU only), and so does `float8` (recent NVIDIA GPUs only).
        dtype: the dtype of `model`.
        activation: `none`, `relu` or `gelu`, applied to the output.
    Raises:
        ValueError: int8 on a device other than a CPU, or float8 on one that does not support it.
    """
    if precision == "int8":
        return _quantised(linear, activation)
    act = ACTIVATIONS[activation]
    if precision == "float8":
        multiply = float8.multiply(linear.weight, linear.bias)
        return lambda x: act(multiply(x))
    inner = layer_dtype(precision, dtype)
    linear = linear.to(inner)
    if linear.weight.device.type == "cpu" and _packs(inner):
        return _packed(linear, activation)
    if activation != "none" and products_available(linear.weight.device, inner):
        return lambda x: triton_products.linear(x.to(inner), linear.weight, linear.bias, activation)
    return lambda x: act(F.linear(x.to(inner), linear.weight, linear.bias))


def layer_dtype(precision: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of what `prepare_linear` computes: of attention, and of norms before linear layers."""
    found = {"model": dtype, "int8": torch.float32, "float8": torch.bfloat16}.get(precision)
    return found or getattr(torch, precision)


def _packed(linear: LinearWeights, activation: str) -> LinearLayer:
    dtype = linear.weight.dtype
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.contiguous(), None)
    multiply, act = torch.ops.mkldnn._linear_pointwise, ACTIVATIONS[activation]
    few = _FEW_ROWS if dtype == torch.float32 else 0

    def apply(x: torch.Tensor) -> torch.Tensor:
        if x.numel() <= few * x.shape[-1]:
            return act(F.linear(x.to(dtype), linear.weight, linear.bias))
        return multiply(x.to(dtype), weight, linear.bias, activation, [], "none")

    return apply


@cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN supports packed weights of this dtype here, with the results that torch gives."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    x, weight = torch.arange(64.).view(4, 16).to(dtype) / 64, torch.arange(128.).view(8, 16).to(dtype) / 128
    try:
        out = _packed(LinearWeights(weight), "gelu")(x)
        if torch.allclose(out.float(), F.gelu(F.linear(x, weight)).float(), rtol=1e-2 if dtype != torch.float32 else 1e-5):
            return True
        reason = "its result differs"
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0]
    logger.warning("packed linear layers in %s are not available (%s); decoding uses F.linear", dtype, reason)
    return False


def _quantised(linear: LinearWeights, activation: str) -> LinearLayer:
    if linear.weight.device.type != "cpu":
        raise ValueError(f"precision=int8 only runs on a CPU, and the model is on {linear.weight.device.type}; set "
                         "precision=float16 or bfloat16")
    weight = linear.weight.float()
    scales = (weight.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    quantised = torch.quantize_per_channel(weight, scales.double(), torch.zeros(len(weight), dtype=torch.long), 0,
                                           torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantised, None if linear.bias is None else linear.bias.float())
    act = ACTIVATIONS[activation]
    # Inputs have 7 bits: with 8, sums of two products may overflow 16 bits on processors without VNNI.
    return lambda x: act(torch.ops.quantized.linear_dynamic(x.float(), packed, True))
