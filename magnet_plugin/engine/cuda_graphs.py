"""Functions of tensors of fixed shapes, recorded once as CUDA graphs and replayed: launching costs nothing then.

The bookkeeping (which recording fits, what has to be copied into it, what is thrown away) knows nothing of CUDA; it is
handed the function that records.
"""
import collections
import logging
import typing as tp

import torch

logger = logging.getLogger(__name__)
Function = tp.Callable[..., torch.Tensor]
Replay = tp.Callable[[], None]
Record = tp.Callable[[Function, tp.Sequence[torch.Tensor]], tuple[Replay, torch.Tensor]]


class Recorder:
    """Runs functions, recorded where that can be done.

    Args:
        record: makes a recording of a function on given input buffers: (replay, output buffer); None never records.
        most: recordings kept; the one unused for longest goes first.
    """

    def __init__(self, record: tp.Optional[Record], most: int = 12) -> None:
        self._record = record
        self._most = most
        self._kept: collections.OrderedDict[tp.Hashable, _Recording] = collections.OrderedDict()

    def __call__(self, key: tp.Hashable, function: Function, *inputs: torch.Tensor) -> torch.Tensor:
        """function(*inputs). The result may be a buffer that the next call with the same key overwrites.

        Args:
            key: names the function, all that it depends on beside `inputs`, and nothing that changes with them.
            inputs: tensors; their shapes and dtypes are added to the key.
        """
        if self._record is None:
            return function(*inputs)
        full = (key, *((x.shape, x.dtype) for x in inputs))
        recording = self._kept.get(full)
        if recording is None:
            buffers = [x.clone() for x in inputs]
            try:
                recording = _Recording(buffers, list(inputs), *self._record(function, buffers))
            except RuntimeError as error:
                logger.warning("CUDA graphs are off, every kernel is launched by itself: %s", str(error).splitlines()[0])
                self._record = None
                self._kept.clear()
                return function(*inputs)
            self._kept[full] = recording
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(full)
        return recording.run(inputs)

    def __len__(self) -> int:
        return len(self._kept)


class _Recording:
    def __init__(self, buffers: list[torch.Tensor], latest: list[torch.Tensor], replay: Replay, output: torch.Tensor
                 ) -> None:
        self._buffers, self._replay, self._output = buffers, replay, output
        self._latest = [(x, _version(x)) for x in latest]

    def run(self, inputs: tp.Sequence[torch.Tensor]) -> torch.Tensor:
        for i, (buffer, x) in enumerate(zip(self._buffers, inputs)):
            seen, version = self._latest[i]
            if x is not seen or version is None or _version(x) != version:      # keys and values stay for a whole clip
                buffer.copy_(x)
                self._latest[i] = (x, _version(x))
        self._replay()
        return self._output


def _version(x: torch.Tensor) -> tp.Optional[int]:
    return None if x.is_inference() else x._version


def record_cuda(function: Function, buffers: tp.Sequence[torch.Tensor]) -> tuple[Replay, torch.Tensor]:
    """Record a CUDA graph of `function(*buffers)`."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):                  # libraries set themselves up in their first calls
        for _ in range(2):
            function(*buffers)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function(*buffers)
    return graph.replay, output


def recorder_for(device: torch.device) -> Recorder:
    """A recorder that records on CUDA, and runs functions as they are elsewhere."""
    return Recorder(record_cuda if device.type == "cuda" else None)
