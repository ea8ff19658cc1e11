"""Triton is used on CUDA, PyTorch on everything else."""
import logging
import sys
import typing as tp

import pytest
import torch

from magnet_plugin.engine import kernels, layers, step, triton_layers, triton_step


@pytest.fixture(autouse=True)
def forget() -> tp.Iterator[None]:
    """Start without the answers of earlier tests, and leave none: on a GPU, a faked failure would switch Triton off."""
    kernels._problem.cache_clear()
    kernels._log.cache_clear()
    yield
    kernels._problem.cache_clear()
    kernels._log.cache_clear()


def test_triton_is_chosen_on_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)      # Only the choice is tested here.
    assert kernels.step_functions("cpu") == (step.remask, step.fill)
    assert kernels.layer_functions("cpu") == (layers.add_norm, layers.embed)
    assert kernels.step_functions("cuda:0") == (triton_step.remask, triton_step.fill)
    assert kernels.layer_functions("cuda") == (triton_layers.add_norm, triton_layers.embed)


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
    monkeypatch.setattr(torch.cuda, "device", fail)
    assert not kernels.available("cuda:0")
    assert "Triton cannot run a kernel on cuda:0 (RuntimeError: Failed to find C compiler)" in caplog.text
