"""Which kernels are refused, and why."""
import pytest
import torch
from torch._subclasses import FakeTensorMode

from magnet_plugin.modules import attention_kernels, attention_probe
from magnet_plugin.modules.attention_probe import unsupported_reason

full, blocked = (attention_kernels.KERNELS[name] for name in ("torch-full", "torch-blocked"))


@pytest.fixture
def use(monkeypatch):
    """Put a function in the place of the kernel `torch-blocked`."""
    def replace(function):
        monkeypatch.setitem(attention_kernels.KERNELS, "torch-blocked", function)
        attention_probe._run.cache_clear()
    yield replace
    attention_probe._run.cache_clear()


def reason(dtype=torch.float32, head_dim=16):
    return unsupported_reason("torch-blocked", "cpu", dtype, head_dim)


def failing(*args):
    raise RuntimeError("No operator found\n  for these inputs")


@pytest.mark.parametrize("function, expected", [
    (failing, "RuntimeError: No operator found for these inputs"),
    (full, "its output differs from that of a dense mask by "),
    (lambda q, k, v, *args: blocked(q, k, v, *args) * float("nan"), "its output differs from that of a dense mask by nan"),
    (lambda q, k, v, *args: blocked(q.detach() + 0 * q, k, v, *args), "its gradient of q differs "),
    (lambda q, k, v, *args: blocked(q, k.detach() + 0 * k, v, *args), "its gradient of k differs "),
    (lambda q, k, v, *args: blocked(q, k, v.detach() + 0 * v, *args), "its gradient of v differs "),
    (lambda q, k, v, *args: blocked(q, k, v, *args).detach(), "RuntimeError: ")])
def test_a_kernel_that_fails_or_whose_numbers_differ_is_refused_with_the_reason(function, expected, use, caplog):
    use(blocked)
    assert reason() is None and not caplog.records
    use(function)
    assert reason().startswith(expected)
    logged = [record.getMessage() for record in caplog.records]
    assert logged == ([] if expected.startswith("RuntimeError") else [
        f"The attention kernel torch-blocked gives wrong results on cpu in torch.float32: {reason()}"])


@pytest.mark.parametrize("dtype", list(attention_probe.TOLERANCES), ids=str)
def test_the_tolerance_follows_the_dtype(dtype, use):
    tolerance = attention_probe.TOLERANCES[dtype]
    use(blocked)
    assert reason(dtype) is None

    def coarse(q, k, v, context, dropout):
        return blocked(q, k, v, context, dropout) + 5 * tolerance
    use(coarse)
    assert "output differs" in reason(dtype)


def test_a_kernel_runs_once_for_each_case(use, monkeypatch):
    calls = []

    def counted(q, *args):
        calls.append((q.dtype, q.shape[-1], torch.are_deterministic_algorithms_enabled()))
        return blocked(q, *args)
    use(counted)
    cases = [(torch.float32, 16), (torch.bfloat16, 16), (torch.float32, 20)]
    for _ in range(2):
        for dtype, head_dim in cases:
            assert reason(dtype, head_dim) is None
    assert calls == [(*case, False) for case in cases]
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    reason(*cases[0])
    reason(*cases[0])
    assert calls[3:] == [(*cases[0], True)]


@pytest.mark.parametrize("mode", [lambda: torch.autocast("cpu", torch.bfloat16), torch.inference_mode, torch.no_grad,
                                  FakeTensorMode, lambda: torch.device("meta")],
                         ids=["autocast", "inference_mode", "no_grad", "FakeTensorMode", "default device"])
def test_the_modes_of_the_caller_do_not_change_the_answer(mode, use):
    use(blocked)
    state = torch.get_rng_state()
    with mode():
        assert reason() is None
    assert torch.equal(torch.get_rng_state(), state)


def test_kernels_for_cuda_are_refused_elsewhere(monkeypatch):
    for kernel in ("torch-local", "xformers-local", "xformers-full", "xformers-bias"):
        assert unsupported_reason(kernel, "cpu", torch.float16, 64) == f"{kernel} has no implementation for cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert unsupported_reason("torch-local", "cuda", torch.float16, 64) == "no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for kernel in ("torch-local", "xformers-local"):
        assert unsupported_reason(kernel, "cuda", torch.float32, 64) == f"{kernel} needs float16 or bfloat16"


@pytest.fixture
def fresh_mismatch():
    attention_probe.xformers_mismatch.cache_clear()
    yield
    attention_probe.xformers_mismatch.cache_clear()


def test_a_build_of_xformers_that_does_not_fit_is_named_with_a_remedy(fresh_mismatch, monkeypatch):
    common = pytest.importorskip("xformers.ops.fmha.common")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    monkeypatch.setattr(attention_probe.importlib.metadata, "version", lambda name: "0.0.35")
    monkeypatch.setattr(common, "_built_with_cuda", False)
    problem, remedy = attention_probe.xformers_mismatch()
    assert problem == "xformers 0.0.35 does not fit torch 2.11.0+cu130: its CUDA extension cannot be loaded"
    assert "torch 2.11.0 and CUDA 13.0" in remedy
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert unsupported_reason("xformers-local", "cuda:0", torch.float16, 64) == problem


@pytest.mark.parametrize("case", ["fits", "fails to import", "not installed", "torch for CPUs"])
def test_other_states_of_xformers(case, fresh_mismatch, monkeypatch):
    common = pytest.importorskip("xformers.ops.fmha.common")
    monkeypatch.setattr(torch.version, "cuda", None if case == "torch for CPUs" else "12.8")
    monkeypatch.setattr(common, "_built_with_cuda", case in ("fits", "fails to import"))
    if case == "not installed":
        def missing(name):
            raise attention_probe.importlib.metadata.PackageNotFoundError(name)
        monkeypatch.setattr(attention_probe.importlib.metadata, "version", missing)
    if case == "fails to import":
        monkeypatch.delattr(__import__("xformers").ops.fmha, "common")
        monkeypatch.setitem(__import__("sys").modules, "xformers.ops.fmha.common", None)
    mismatch = attention_probe.xformers_mismatch()
    assert (mismatch is not None) == (case == "fails to import")
    if mismatch:
        assert "does not fit torch" in mismatch[0] and "halted" in mismatch[0]
