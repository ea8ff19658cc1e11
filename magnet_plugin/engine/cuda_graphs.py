"""CUDA graphs: a function of tensors at fixed addresses is captured once and then replayed with a single launch."""
import logging
import os
import typing as tp

import torch

logger = logging.getLogger(__name__)
Function = tp.Callable[[], tp.Any]
#: Calls of more frames than this (batch, times branches, times length) are not captured: launching their kernels takes less
#: time than running them, and a graph would keep their memory. MAGNET_CUDA_GRAPH_FRAMES sets another limit; 0 disables
#: graphs.
MAX_FRAMES = 16_384
_WARMUPS = 2            # Libraries initialize themselves and choose algorithms in their first calls.


def captures(device: torch.device, frames: int) -> bool:
    """Return whether calls of so many frames are captured on this device."""
    return device.type == "cuda" and frames <= int(os.environ.get("MAGNET_CUDA_GRAPH_FRAMES", MAX_FRAMES))


class CudaGraphs:
    """Captures functions on one device; all graphs share one memory pool, because only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool: tp.Any = None

    def capture(self, function: Function, reset: Function) -> Function:
        """Return a function that does what `function` does now, with the tensors at the same addresses.

        Args:
            function: launches kernels and does not synchronize; it is called a few times first.
            reset: called before each of these calls.
        Returns:
            The replay; if the capture fails, `function` itself, after a warning.
        Raises:
            torch.OutOfMemoryError: there is no memory for the graph.
        """
        with torch.cuda.device(self.device):
            stream = torch.cuda.current_stream()
            try:
                return self._capture(function, reset, stream)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                logger.warning("capturing a CUDA graph failed, its kernels are launched one by one: %s",
                               str(error).splitlines()[0])
                return function
            finally:                    # A capture that fails may leave its own stream as the current one.
                torch.cuda.set_stream(stream)

    def _capture(self, function: Function, reset: Function, stream: torch.cuda.Stream) -> Function:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        side = torch.cuda.Stream()
        side.wait_stream(stream)
        with torch.cuda.stream(side):
            for _ in range(_WARMUPS):
                reset()
                function()
        stream.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            function()

        def replay() -> None:
            with torch.cuda.device(self.device):
                graph.replay()

        return replay
