"""Linear layers in 8-bit floating point (e4m3) on GPUs that multiply it: faster in large batches, and approximate.

Each output has a scale of its own, and so has each input frame, which is quantised on the fly. Results are bfloat16.
"""
import typing as tp

import torch

from .kernels import layer_functions

_LEAST_CAPABILITY = (8, 9)
_ALIGN = 16         # cuBLAS and CUTLASS multiply rows of a multiple of so many bytes.


def multiply(weight: torch.Tensor, bias: tp.Optional[torch.Tensor]) -> tp.Callable[[torch.Tensor], torch.Tensor]:
    """Return the linear layer [..., in] -> bfloat16 [..., out] with these weights, quantised.

    Args:
        weight: [out, in].
        bias: [out] or None.
    Raises:
        ValueError: the device does not multiply float8, or the layer's sizes are not multiples of 16.
    """
    problem = find_problem(weight.device)
    if problem is not None:
        raise ValueError(problem)
    if any(size % _ALIGN for size in weight.shape):
        raise ValueError(f"precision=float8 requires layers whose sizes are multiples of {_ALIGN}, got "
                         f"{weight.shape[1]} to {weight.shape[0]} channels; set precision=bfloat16")
    quantise = layer_functions(weight.device).quantise
    quantised, scales = quantise(weight.detach().contiguous())
    columns, scales = quantised.t(), scales.t()
    bias = None if bias is None else bias.to(torch.bfloat16)

    def layer(x: torch.Tensor) -> torch.Tensor:
        rows, row_scales = quantise(x.reshape(-1, x.shape[-1]))
        product = torch._scaled_mm(rows, columns, row_scales, scales, bias=bias, out_dtype=torch.bfloat16,
                                   use_fast_accum=True)
        return product.unflatten(0, x.shape[:-1])

    return layer


def find_problem(device: torch.device) -> tp.Optional[str]:
    """Return why this device does not multiply float8 and what to set instead; None if it does."""
    if device.type != "cuda":
        return (f"precision=float8 requires an NVIDIA GPU, and the model is on {device.type}; set "
                f"precision={'int8' if device.type == 'cpu' else 'bfloat16'}")
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        return ("precision=float8 requires a GPU of compute capability 8.9 or higher (Ada, Hopper and later), and "
                f"{torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}; set precision=bfloat16")
    return None
