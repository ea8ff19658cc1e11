"""x W^T + b for inference, with the weights laid out once: where most of the time of decoding goes.

On a CPU, oneDNN multiplies with weights that it has reordered for the processor, and applies the activation while the
result is still in cache. Elsewhere, and where this build of torch lacks that operator, torch's own product is taken: it
gives the same numbers up to the order of summation.
"""
import dataclasses
import logging
import typing as tp
from functools import cache

import torch
from torch.nn import functional as F

logger = logging.getLogger(__name__)
Product = tp.Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: dict[str, tp.Callable[[torch.Tensor], torch.Tensor]] = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}
PRECISIONS = ("model", "bfloat16", "float16", "int8")


@dataclasses.dataclass(frozen=True)
class Linear:
    """weight [out, in] and bias [out] or None."""
    weight: torch.Tensor
    bias: tp.Optional[torch.Tensor] = None

    def scaled(self, scale: torch.Tensor) -> "Linear":
        """The same, its output multiplied by `scale` [out]."""
        return Linear(self.weight * scale[:, None], None if self.bias is None else self.bias * scale)

    def split(self, sizes: tp.Sequence[int]) -> list["Linear"]:
        """Cut along the outputs."""
        biases = [None] * len(sizes) if self.bias is None else self.bias.split(list(sizes))
        return [Linear(weight, bias) for weight, bias in zip(self.weight.split(list(sizes)), biases)]

    def to(self, dtype: torch.dtype) -> "Linear":
        """Weight and bias in another dtype."""
        return Linear(self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))


def prepare(linear: Linear, precision: str, dtype: torch.dtype, activation: str = "none") -> Product:
    """A function [..., in] -> [..., out] whose output has the dtype of the product (float32 for int8).

    Args:
        linear: the weights.
        precision: `model`, in `dtype`; `bfloat16` or `float16`; or `int8`, weights of 8 bits with a scale for each
            output, inputs quantised as they come (CPU only).
        dtype: the dtype of `model`.
        activation: `none`, `relu` or `gelu`, applied to the result.
    Raises:
        ValueError: int8 on another device than a CPU.
    """
    if precision == "int8":
        return _quantised(linear, activation)
    inner = dtype if precision == "model" else getattr(torch, precision)
    linear = linear.to(inner)
    if linear.weight.device.type == "cpu" and _packs(inner):
        return _packed(linear, activation)
    act = ACTIVATIONS[activation]
    return lambda x: act(F.linear(x.to(inner), linear.weight, linear.bias))


def _packed(linear: Linear, activation: str) -> Product:
    dtype = linear.weight.dtype
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.contiguous(), None)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x.to(dtype), weight, linear.bias, activation, [], "none")


@cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN takes packed weights of this dtype here, and gives what torch gives."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    x, weight = torch.arange(64.).view(4, 16).to(dtype) / 64, torch.arange(128.).view(8, 16).to(dtype) / 128
    try:
        out = _packed(Linear(weight), "gelu")(x)
        if torch.allclose(out.float(), F.gelu(F.linear(x, weight)).float(), rtol=1e-2 if dtype != torch.float32 else 1e-5):
            return True
        reason = "its result differs"
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0]
    logger.warning("packed matrix products in %s are not available (%s); decoding takes torch's own", dtype, reason)
    return False


def _quantised(linear: Linear, activation: str) -> Product:
    if linear.weight.device.type != "cpu":
        raise ValueError(f"precision=int8 runs on a CPU alone, and the model is on {linear.weight.device.type}; set "
                         "precision=float16 or bfloat16")
    weight = linear.weight.float()
    scales = (weight.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    quantised = torch.quantize_per_channel(weight, scales.double(), torch.zeros(len(weight), dtype=torch.long), 0,
                                           torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantised, None if linear.bias is None else linear.bias.float())
    act = ACTIVATIONS[activation]
    # Inputs of 7 bits: with 8, sums of two products may overflow their 16 bits on processors without VNNI.
    return lambda x: act(torch.ops.quantized.linear_dynamic(x.float(), packed, True))
