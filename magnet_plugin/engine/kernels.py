"""Chooses the implementation of decoding steps and elementwise layers: Triton on CUDA, PyTorch elsewhere."""
import functools
import logging
import typing as tp

import torch

from . import layers, step

logger = logging.getLogger(__name__)


class StepFunctions(tp.NamedTuple):
    """See `step.remask` and `step.fill`."""
    remask: tp.Callable[..., None]
    fill: tp.Callable[..., None]


class LayerFunctions(tp.NamedTuple):
    """See `layers.add_norm` and `layers.embed`."""
    add_norm: tp.Callable[..., torch.Tensor]
    embed: tp.Callable[..., torch.Tensor]


def available(device: tp.Union[str, torch.device]) -> bool:
    """Whether Triton kernels run on this device. On CUDA, one log line per process gives the reason if they do not.

    The first call for a GPU compiles and runs a small kernel, so it must not happen while a CUDA graph is being captured.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return False
    problem = _problem(device)
    if problem is not None:
        _log(problem)
    return problem is None


def step_functions(device: tp.Union[str, torch.device]) -> StepFunctions:
    """Return the functions that make a decoding step on this device."""
    if not available(device):
        return StepFunctions(step.remask, step.fill)
    from . import triton_step
    return StepFunctions(triton_step.remask, triton_step.fill)


def layer_functions(device: tp.Union[str, torch.device]) -> LayerFunctions:
    """Return the elementwise parts of a layer for this device."""
    if not available(device):
        return LayerFunctions(layers.add_norm, layers.embed)
    from . import triton_layers
    return LayerFunctions(triton_layers.add_norm, triton_layers.embed)


@functools.cache
def _problem(device: torch.device) -> tp.Optional[str]:
    """Return why Triton cannot be used, None if it can. Where no GPU is in reach (fake tensors), nothing is launched."""
    try:
        import triton.language  # noqa: F401
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    if torch.cuda.is_available():
        from . import triton_layers
        try:
            with torch.cuda.device(device):
                x = torch.zeros(1, 1, 32, device=device)
                triton_layers.add_norm(x, None, x[0, 0], x[0, 0], 1e-5, torch.float32)
        except Exception as error:      # From missing compilers to unsupported GPUs; the message names the problem.
            return f"Triton cannot run a kernel on {device} ({type(error).__name__}: {error})"
    return None


@functools.cache
def _log(problem: str) -> None:
    logger.warning("%s; decoding uses the slower operations of PyTorch", problem)
