"""Triton is used on CUDA, PyTorch on everything else."""
import contextlib
import functools
import logging
import sys
import typing as tp

import pytest
import torch

from magnet_plugin.engine import kernels, layers, step, triton_layers, triton_products, triton_step
from magnet_plugin.engine.linear import LinearWeights, prepare_linear
from magnet_plugin.engine.text_attention import prepare_text_attention

from ..helpers.fake_cuda import fake_cuda
from ..helpers.triton_kernels import interpreted, recorded


@pytest.fixture(autouse=True)
def forget() -> tp.Iterator[None]:
    """Start without the answers of earlier tests, and leave none: on a GPU, a faked failure would switch Triton off."""
    caches = (kernels._problem, kernels._problem_of_products, kernels._log)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_triton_is_chosen_on_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)      # Only the choice is tested here.
    assert kernels.step_functions("cpu") == (step.remask, step.fill)
    assert kernels.layer_functions("cpu") == (layers.add_norm, layers.embed, layers.quantise)
    assert kernels.step_functions("cuda:0") == (triton_step.remask, triton_step.fill)
    assert kernels.layer_functions("cuda") == (triton_layers.add_norm, triton_layers.embed, triton_layers.quantise)


def test_without_triton_one_warning_says_that_pytorch_is_used(monkeypatch: pytest.MonkeyPatch,
                                                            caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "triton.language", None)
    with caplog.at_level(logging.WARNING):
        assert kernels.step_functions("cpu").fill is step.fill and not caplog.messages
        for device in ("cuda", "cuda:1", "cuda"):
            assert kernels.step_functions(device) == (step.remask, step.fill)
            assert kernels.layer_functions(device).embed is layers.embed
    assert len(caplog.messages) == 1
    assert "Triton cannot be imported" in caplog.messages[0] and "operations of PyTorch" in caplog.messages[0]


def test_a_kernel_that_fails_gives_the_reason(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(device: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "device", fail)
    assert not kernels.available("cuda:0")
    assert "Triton cannot run a kernel on cuda:0 (RuntimeError: Failed to find C compiler)" in caplog.text


def test_nothing_is_tried_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="Triton was not tried on cuda:1 before a CUDA graph was captured"):
            kernels.available("cuda")
    monkeypatch.setattr(kernels, "_problem", lambda device: None)       # Tried before.
    assert kernels.available("cuda")
    with pytest.raises(RuntimeError, match="before a CUDA graph was captured"):
        kernels.products_available("cuda", torch.float16)


@pytest.mark.parametrize("name, dtype", [("linear", torch.bfloat16), ("text_attention", torch.float16)])
def test_products_that_differ_from_those_of_pytorch_are_not_used(
        name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Compared on a CPU, in Triton's interpreter."""
    right = getattr(triton_products, name)
    compare = functools.partial(kernels.compare_products, torch.device("cpu"), dtype)
    with interpreted():
        compare()
        monkeypatch.setattr(triton_products, name, lambda *args, **others: 1.05 * right(*args, **others))
        with pytest.raises(RuntimeError, match="its result differs from that of PyTorch by [45]") as error:
            compare()
    monkeypatch.setattr(kernels, "_try", lambda function, device: str(error.value))
    monkeypatch.setattr(kernels, "available", lambda device: True)
    for _ in range(2):
        assert not kernels.products_available("cuda", dtype)
    assert len(caplog.messages) == 1 and "differs" in caplog.messages[0]


@pytest.mark.parametrize("device, dtype, expected", [("cuda", torch.float16, True), ("cuda", torch.bfloat16, True),
                                                     ("cuda", torch.float32, False), ("cpu", torch.bfloat16, False)])
def test_products_are_made_for_16_bits_on_cuda(device: str, dtype: torch.dtype, expected: bool,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)      # Only the choice is tested here.
    assert kernels.products_available(device, dtype) == expected
    with fake_cuda() if device == "cuda" else contextlib.nullcontext(), \
            recorded(triton_products, "linear_kernel", "text_attention_kernel") as launches:
        weights = LinearWeights(torch.zeros(64, 64, device=device))
        x, text = torch.zeros(1, 4, 64, device=device), torch.zeros(1, 2, 3, 32, device=device, dtype=dtype)
        gelu, plain = (prepare_linear(weights, "model", dtype, activation) for activation in ("gelu", "none"))
        results = gelu(x), plain(x), prepare_text_attention(weights, "model", dtype)(x, text, text, None)
    assert len(launches) == 2 * expected
    assert all(result.dtype == dtype and result.shape == x.shape for result in results)
