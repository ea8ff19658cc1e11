"""The cache of CUDA graphs. On a CPU, a function stands in for the capture."""
import typing as tp

import pytest
import torch

from magnet_plugin.engine.cuda_graphs import CudaGraphCache
from magnet_plugin.engine.forward import engine_for

from ..helpers.guided_logits import TEXTS, cuda_model, guided_logits, relative_error
from ..helpers.small_models import MagnetLMModel, build_scaled


class FakeCapture:
    """Captures nothing, but reads and writes fixed buffers as a CUDA graph does."""

    def __init__(self) -> None:
        self.captured, self.replayed = 0, 0

    def __call__(self, function: tp.Any, buffers: tp.Any) -> tp.Any:
        output = function(*buffers)
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            output.copy_(function(*buffers))

        return replay, output


def test_captured_graphs_give_the_logits_of_the_reference_path_and_are_reused() -> None:
    model = build_scaled(MagnetLMModel, biases=True)
    plain = guided_logits(model, engine="plain")
    engine, capture = engine_for(model, "model", torch.float32), FakeCapture()
    engine.varying_shapes, engine.graphs = False, CudaGraphCache(capture)
    assert relative_error(guided_logits(model, engine="lean"), plain) < 1e-5
    # Kinds of step: full or band, with and without the unconditional branch.
    assert (capture.captured, capture.replayed) == (4, 24)
    assert relative_error(guided_logits(model, seed=1, engine="lean"), guided_logits(model, seed=1, engine="plain")) < 1e-5
    assert (capture.captured, capture.replayed) == (4, 48)
    other = {"seed": 1, "texts": TEXTS[::-1]}                   # Same shapes: the graphs have to read the new text.
    assert relative_error(guided_logits(model, engine="lean", **other), guided_logits(model, engine="plain", **other)) < 1e-5
    assert (capture.captured, capture.replayed) == (4, 72)


def test_the_cache_copies_changed_inputs_and_evicts_the_least_recently_used_graph() -> None:
    capture = FakeCapture()
    graphs, add = CudaGraphCache(capture, capacity=2), torch.add
    fixed, one = torch.ones(3), torch.zeros(3)
    assert graphs("a", add, fixed, one).tolist() == [1, 1, 1]
    one += 1
    assert graphs("a", add, fixed, one).tolist() == [2, 2, 2]
    fixed.mul_(5)
    assert graphs("a", add, fixed, one).tolist() == [6, 6, 6]
    graphs("b", add, fixed, one), graphs("a", add, fixed[:1], one[:1])
    assert (capture.captured, len(graphs)) == (3, 2)
    graphs("a", add, fixed, one)
    assert capture.captured == 4


def test_a_failed_capture_warns_once_and_runs_without_graphs(caplog: pytest.LogCaptureFixture) -> None:
    def fail(function: tp.Any, buffers: tp.Any) -> tp.Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = CudaGraphCache(fail)
    for _ in range(2):
        assert graphs("a", torch.add, torch.ones(1), torch.ones(1)).item() == 2
    assert caplog.text.count("CUDA graphs are disabled") == 1 and "not permitted" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("dtype,bound", [(torch.float32, 1e-3), (torch.float16, 0.1), (torch.bfloat16, 0.2)])
def test_graphs_on_cuda_give_the_logits_of_the_reference_path(dtype: torch.dtype, bound: float,
                                                              caplog: pytest.LogCaptureFixture) -> None:
    model = cuda_model(dtype)
    plain = guided_logits(model, engine="plain")
    for _ in range(2):                              # captured, then replayed
        assert relative_error(guided_logits(model, engine="lean"), plain) < bound
    assert len(engine_for(model, "model", dtype).graphs) == 4 and "CUDA graphs are disabled" not in caplog.text
