"""A cache of CUDA graphs: functions of tensors with fixed shapes are captured once and then replayed at no launch cost.

The bookkeeping (which graph fits, what is copied into its input buffers, which graph is evicted) does not depend on CUDA;
the function that captures is an argument.
"""
import collections
import logging
import typing as tp

import torch

logger = logging.getLogger(__name__)
Function = tp.Callable[..., torch.Tensor]
Replay = tp.Callable[[], None]
Capture = tp.Callable[[Function, tp.Sequence[torch.Tensor]], tuple[Replay, torch.Tensor]]


class CudaGraphCache:
    """Runs functions, as captured graphs where possible.

    Args:
        capture: captures a function on given input buffers and returns (replay, output buffer); None never captures.
        capacity: number of graphs kept; the least recently used one is evicted first.
    """

    def __init__(self, capture: tp.Optional[Capture], capacity: int = 12) -> None:
        self._capture = capture
        self._capacity = capacity
        self._graphs: collections.OrderedDict[tp.Hashable, _Graph] = collections.OrderedDict()

    def __call__(self, key: tp.Hashable, function: Function, *inputs: torch.Tensor) -> torch.Tensor:
        """Return `function(*inputs)`. The next call with the same key may overwrite the result.

        Args:
            key: identifies the function and everything it depends on except `inputs`.
            inputs: tensors; their shapes and dtypes are added to the key.
        """
        if self._capture is None:
            return function(*inputs)
        full = (key, *((x.shape, x.dtype) for x in inputs))
        graph = self._graphs.get(full)
        if graph is None:
            buffers = [x.clone() for x in inputs]
            try:
                graph = _Graph(buffers, list(inputs), *self._capture(function, buffers))
            except RuntimeError as error:
                logger.warning("CUDA graphs are disabled, every kernel is launched separately: %s",
                               str(error).splitlines()[0])
                self._capture = None
                self._graphs.clear()
                return function(*inputs)
            self._graphs[full] = graph
            while len(self._graphs) > self._capacity:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(full)
        return graph.run(inputs)

    def __len__(self) -> int:
        return len(self._graphs)


class _Graph:
    def __init__(self, buffers: list[torch.Tensor], latest: list[torch.Tensor], replay: Replay, output: torch.Tensor
                 ) -> None:
        self._buffers, self._replay, self._output = buffers, replay, output
        self._latest = [(x, _version(x)) for x in latest]

    def run(self, inputs: tp.Sequence[torch.Tensor]) -> torch.Tensor:
        for i, (buffer, x) in enumerate(zip(self._buffers, inputs)):
            seen, version = self._latest[i]
            if x is not seen or version is None or _version(x) != version:      # Keys and values stay for a whole clip.
                buffer.copy_(x)
                self._latest[i] = (x, _version(x))
        self._replay()
        return self._output


def _version(x: torch.Tensor) -> tp.Optional[int]:
    return None if x.is_inference() else x._version


def capture_cuda(function: Function, buffers: tp.Sequence[torch.Tensor]) -> tuple[Replay, torch.Tensor]:
    """Capture a CUDA graph of `function(*buffers)`."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):                  # Libraries initialise themselves in their first calls.
        for _ in range(2):
            function(*buffers)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function(*buffers)
    return graph.replay, output


def graph_cache_for(device: torch.device) -> CudaGraphCache:
    """Return a cache that captures on CUDA; on other devices it just runs the functions."""
    return CudaGraphCache(capture_cuda if device.type == "cuda" else None)
