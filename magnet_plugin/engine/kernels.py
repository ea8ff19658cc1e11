"""Chooses the implementation of what is not a plain matrix product or self-attention: Triton on CUDA, PyTorch elsewhere."""
import functools
import logging
import typing as tp

import torch
from torch.nn import functional as F

from . import layers, step

logger = logging.getLogger(__name__)


class StepFunctions(tp.NamedTuple):
    """See `step.remask` and `step.fill`."""
    remask: tp.Callable[..., None]
    fill: tp.Callable[..., None]


class LayerFunctions(tp.NamedTuple):
    """See the functions of `layers` with these names."""
    add_norm: tp.Callable[..., torch.Tensor]
    embed: tp.Callable[..., torch.Tensor]
    quantise: tp.Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def available(device: tp.Union[str, torch.device]) -> bool:
    """Whether Triton kernels run on this device. On CUDA, one log line per process gives the reason if they do not.

    Raises:
        RuntimeError: on the first call for a GPU while a CUDA graph is being captured: it compiles and runs a kernel.
    """
    return _runs(_problem, device)


def products_available(device: tp.Union[str, torch.device], dtype: torch.dtype) -> bool:
    """Whether the products of `triton_products` run on this device and dtype, and are correct; see `available`.

    In float32 they do not: Triton has no tensor cores for it that are exact, and cuBLAS is faster.
    """
    return dtype in (torch.float16, torch.bfloat16) and available(device) and _runs(_problem_of_products, device, dtype)


def step_functions(device: tp.Union[str, torch.device]) -> StepFunctions:
    """Return the functions that make a decoding step on this device."""
    if not available(device):
        return StepFunctions(step.remask, step.fill)
    from . import triton_step
    return StepFunctions(triton_step.remask, triton_step.fill)


def layer_functions(device: tp.Union[str, torch.device]) -> LayerFunctions:
    """Return the elementwise parts of a layer for this device."""
    if not available(device):
        return LayerFunctions(layers.add_norm, layers.embed, layers.quantise)
    from . import triton_layers
    return LayerFunctions(triton_layers.add_norm, triton_layers.embed, triton_layers.quantise)


def _runs(find_problem: tp.Callable[..., tp.Optional[str]], device: tp.Union[str, torch.device], *args: tp.Any) -> bool:
    device = torch.device(device)
    if device.type != "cuda":
        return False
    if device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    problem = find_problem(device, *args)
    if problem is not None:
        _log(problem)
    return problem is None


@functools.cache
def _problem(device: torch.device) -> tp.Optional[str]:
    """Return why Triton cannot be used, None if it can. Where no GPU is in reach (fake tensors), nothing is launched."""
    try:
        import triton.language  # noqa: F401
    except ImportError as error:
        return f"Triton cannot be imported ({error})"

    def add_norm() -> None:
        from . import triton_layers
        x = torch.zeros(1, 1, 32, device=device)
        triton_layers.add_norm(x, None, x[0, 0], x[0, 0], 1e-5, torch.float32)

    return _try(add_norm, device)


@functools.cache
def _problem_of_products(device: torch.device, dtype: torch.dtype) -> tp.Optional[str]:
    """Return why the products cannot be used, None if they can and agree with PyTorch."""
    return _try(lambda: compare_products(device, dtype), device)


def compare_products(device: torch.device, dtype: torch.dtype) -> None:
    """Compare the products of `triton_products` with PyTorch's. The largest tiles need the most memory of a processor.

    Raises:
        RuntimeError: they differ.
    """
    from . import triton_products
    generator = torch.Generator().manual_seed(0)
    x, weight, text = (scale * torch.randn(shape, generator=generator).to(device, dtype)
                       for scale, shape in ((1, (1, 100, 64)), (0.125, (200, 64)), (1, (2, 1, 2, 70, 32))))
    for found, expected in (
            (triton_products.linear(x, weight, None, "gelu", tile=128), F.gelu(F.linear(x, weight))),
            (triton_products.text_attention(x, weight[:64], None, text[0], text[1], None),
             layers.text_attention(F.linear(x, weight[:64]), text[0], text[1], None))):
        error = float((found.float() - expected.float()).abs().max() / expected.float().abs().max())
        if not error < 0.02:
            raise RuntimeError(f"its result differs from that of PyTorch by {error:.1%}")


def _try(function: tp.Callable[[], None], device: torch.device) -> tp.Optional[str]:
    """Call a function that launches kernels, unless there is no GPU; return why it failed."""
    if not torch.cuda.is_available():
        return None
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"Triton was not tried on {device} before a CUDA graph was captured; call kernels.available and "
                           "kernels.products_available first")
    try:
        with torch.cuda.device(device):
            function()
            torch.cuda.synchronize()
    except Exception as error:      # From missing compilers to unsupported GPUs; the message names the problem.
        return f"Triton cannot run a kernel on {device} ({type(error).__name__}: {error})"
    return None


@functools.cache
def _log(problem: str) -> None:
    logger.warning("%s; decoding uses the slower operations of PyTorch", problem)
