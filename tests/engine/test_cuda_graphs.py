"""Capturing CUDA graphs. On a CPU, stand-ins for streams and graphs record what is done with them."""
import contextlib
import typing as tp

import pytest
import torch

from magnet_plugin.engine.cuda_graphs import CudaGraphs, captures
from magnet_plugin.engine.engines import engine_for

from ..helpers.guided_logits import cuda_model, texts_for


class FakeCuda:
    """Stands in for `torch.cuda`: streams are names, and entering a graph raises `error` if it is set."""

    def __init__(self) -> None:
        self.stream, self.devices, self.pools, self.replays = "main", [], [], 0
        self.error: tp.Optional[Exception] = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cuda = self

        class Stream(str):
            def __new__(cls) -> "Stream":
                return super().__new__(cls, "side")

            def wait_stream(self, other: str) -> None:
                pass

        class Main(str):
            def wait_stream(self, other: str) -> None:
                pass

        class Graph:
            def replay(self) -> None:
                cuda.replays += 1

        @contextlib.contextmanager
        def graph(captured: Graph, pool: object) -> tp.Iterator[None]:
            cuda.pools.append(pool)
            cuda.stream = "capturing"
            yield
            if cuda.error is not None:          # As torch does, without restoring the stream.
                raise cuda.error
            cuda.stream = "main"

        def set_stream(stream: str) -> None:
            cuda.stream = str(stream)

        for name, value in {
                "device": lambda device: contextlib.nullcontext(cuda.devices.append(device)), "Stream": Stream,
                "current_stream": lambda: Main(cuda.stream), "stream": lambda stream: contextlib.nullcontext(),
                "set_stream": set_stream, "CUDAGraph": Graph, "graph": graph, "graph_pool_handle": object}.items():
            monkeypatch.setattr(torch.cuda, name, value)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    fake.install(monkeypatch)
    return fake


def test_graphs_share_a_memory_pool_and_run_on_their_device(cuda: FakeCuda) -> None:
    calls: list[str] = []
    graphs = CudaGraphs(torch.device("cuda:1"))
    for _ in range(2):
        replay = graphs.capture(lambda: calls.append("run"), lambda: calls.append("reset"))
    assert calls == 2 * ["reset", "run", "reset", "run", "run"]
    assert len(cuda.pools) == 2 and cuda.pools[0] is cuda.pools[1]
    calls.clear()
    cuda.devices.clear()
    replay()
    assert cuda.replays == 1 and not calls and cuda.devices == [torch.device("cuda:1")]


def test_a_failed_capture_warns_restores_the_stream_and_the_next_one_is_tried(cuda: FakeCuda,
                                                                             caplog: pytest.LogCaptureFixture) -> None:
    graphs = CudaGraphs(torch.device("cuda"))
    cuda.error = RuntimeError("operation not permitted when stream is capturing\nmore")

    def function() -> None:
        pass

    assert graphs.capture(function, function) is function and cuda.stream == "main"
    assert caplog.text.count("capturing a CUDA graph failed") == 1 and "not permitted when" in caplog.text
    cuda.error = None
    assert graphs.capture(function, function) is not function


def test_running_out_of_memory_is_not_taken_for_a_function_that_cannot_be_captured(cuda: FakeCuda) -> None:
    cuda.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        CudaGraphs(torch.device("cuda")).capture(lambda: None, lambda: None)
    assert cuda.stream == "main"


def test_only_short_passes_on_cuda_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert captures(torch.device("cuda"), 1000) and not captures(torch.device("cpu"), 1000)
    assert not captures(torch.device("cuda"), 1_000_000)
    monkeypatch.setenv("MAGNET_CUDA_GRAPH_FRAMES", "0")
    assert not captures(torch.device("cuda"), 1000)


@pytest.mark.gpu
def test_each_kind_of_step_on_cuda_is_captured_once(caplog: pytest.LogCaptureFixture) -> None:
    model = cuda_model()
    for _ in range(2):
        found = model.generate(conditions=texts_for(model), max_gen_len=50, seed=1, decoding_steps=[3, 3, 3, 3])
    plain = model.generate(conditions=texts_for(model), max_gen_len=50, seed=1, decoding_steps=[3, 3, 3, 3], engine="plain")
    assert (found == plain).float().mean() > 0.9 and "capturing a CUDA graph failed" not in caplog.text
    decoders = engine_for(model, "model", torch.float32).decoders
    assert len(decoders) == 1 and len(next(iter(decoders.values()))._calls) == 8
