"""Attention under a context, compared with its formula, and the choice of the kernel."""
import logging
import random

import pytest
import torch

from magnet_plugin.modules import attention
from magnet_plugin.modules.attention import attend, choose
from magnet_plugin.modules.context import Band, Causal, Context, Full

from ..helpers.attention import random_qkv, reference_attention

LENGTHS = (1, 5, 23, 24, 25, 47, 48, 49, 251, 498, 500, 1500)


@pytest.mark.parametrize("seq_len", LENGTHS)
def test_a_band_equals_the_formula_at_every_length(seq_len):
    q, k, v = random_qkv(1, 2, seq_len, 16, seed=seq_len)
    for width in (0, 1, 5, 60, seq_len - 1, seq_len, seq_len + 3):
        out = attend(q, k, v, Band(width), backend="torch")
        assert (out - reference_attention(q, k, v, Band(width))).abs().max() < 1e-5, f"{width=}"


def test_a_band_and_its_gradient_equal_the_formula_at_random_shapes():
    draw = random.Random(0)
    for case in range(60):
        shape = (draw.randint(1, 3), draw.randint(1, 4), draw.randint(1, 200), draw.choice([4, 8, 20, 64]))
        width = draw.choice([0, 1, 2, 5, draw.randint(0, 250)])
        ours, theirs = (random_qkv(*shape, seed=case, leaf=True) for _ in range(2))
        if draw.random() < 0.5:  # the layout after a projection: [B, T, H, D] in memory
            ours = [x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in ours]
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(case))
        out, expected = attend(*ours, Band(width)), reference_attention(*theirs, Band(width))
        assert out.shape == shape
        assert (out - expected).abs().max() < 1e-5, f"{case=} {shape=} {width=}"
        (out * weight).sum().backward()
        (expected * weight).sum().backward()
        for a, b, name in zip(ours, theirs, "qkv", strict=True):
            assert (a.grad - b.grad).abs().max() < 2e-5, f"{case=} {shape=} {width=} gradient of {name}"


@pytest.mark.parametrize("seq_len", (49, 251, 500))
@pytest.mark.parametrize("width", (0, 1, 5, 13))
def test_the_receptive_field_is_exactly_the_band(seq_len, width):
    """Past and future keys inside the band have a gradient; outside of it, the gradient is exactly zero."""
    for frame in {0, 1, 23, 24, 25, 48, seq_len // 2, seq_len - 2, seq_len - 1}:
        q, k, v = random_qkv(1, 2, seq_len, 8, seed=frame, leaf=True)
        attend(q, k, v, Band(width))[:, :, frame].pow(2).sum().backward()
        inside = torch.tensor([abs(frame - s) <= width for s in range(seq_len)])
        reached = v.grad.abs().amax((0, 1, 3)) > 0
        assert torch.equal(reached, inside), f"{frame=}"
        if width:  # the weight of a single key is 1, whatever the key
            assert torch.equal(k.grad.abs().amax((0, 1, 3)) > 0, inside), f"{frame=}"


def test_full_attention_equals_the_formula_and_serves_cross_attention():
    q, k, v = random_qkv(2, 3, 40, 8)
    assert (attend(q, k, v, Full()) - reference_attention(q, k, v, Full())).abs().max() < 1e-5
    out = attend(q, k[:, :, :7], v[:, :, :7], Full())
    assert (out - reference_attention(q, k[:, :, :7], v[:, :, :7], Full())).abs().max() < 1e-5
    for context in (Full(), Band(5)):
        moved = k.clone()
        moved[:, :, 13] += 1
        assert not torch.allclose(attend(q, k, v, context)[:, :, 10], attend(q, moved, v, context)[:, :, 10]), context


def test_causal_attention_equals_the_formula():
    q, k, v = random_qkv(2, 3, 40, 8)
    assert choose(Causal(), "cpu", torch.float32, "auto", 40) == "torch-causal"
    assert choose(Causal(), "cpu", torch.float32, "auto", 1) == "torch-full"
    assert (attend(q, k, v, Causal()) - reference_attention(q, k, v, Causal())).abs().max() < 1e-5
    one = [x[:, :, :1] for x in (q, k, v)]
    assert torch.allclose(attend(*one, Causal()), one[2], atol=1e-6)


def test_a_new_context_only_has_to_implement_dense():
    class Backwards(Context):
        def dense(self, num_queries, num_keys, device=None):
            return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).triu()

    q, k, v = random_qkv(2, 3, 40, 8)
    assert choose(Backwards(), "cpu", torch.float32) == "torch-dense"
    assert (attend(q, k, v, Backwards()) - reference_attention(q, k, v, Backwards())).abs().max() < 1e-5


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 3e-3), (torch.float64, 1e-5)])
def test_other_dtypes_are_supported_on_a_cpu(dtype, tolerance):
    q, k, v = random_qkv(2, 2, 251, 16, dtype=dtype)
    out = attend(q, k, v, Band(5))
    assert out.dtype == dtype
    assert (out.float() - reference_attention(q, k, v, Band(5))).abs().max() < tolerance


def test_dropout_drops_attention_weights():
    q, k, v = random_qkv(2, 2, 251, 16)
    for context in (Full(), Band(5)):
        torch.manual_seed(0)
        kept = attend(q, k, torch.ones_like(v), context, dropout=0.0)
        assert torch.allclose(kept, torch.ones_like(kept))
        dropped = attend(q, k, torch.ones_like(v), context, dropout=0.5)  # the remaining weights are doubled: 1 on average
        assert dropped.std() > 0.05 and abs(dropped.mean() - 1) < 0.05


def test_the_choice_of_a_torch_kernel():
    assert choose(Full(), "cpu", torch.float32, "torch", 500) == "torch-full"
    assert choose(Band(5), "cpu", torch.float32, "torch", 500) == "torch-blocked"
    assert choose(Band(5), "cpu", torch.float32, "torch", 20) == "torch-dense"  # one block would cover it
    assert choose(Band(5), "cpu", torch.float32, "torch", 6) == "torch-full"
    assert choose(Band(2000), "cpu", torch.float32, "auto", 1500) == "torch-full"


@pytest.fixture
def refuse(monkeypatch):
    """Simulate a GPU on which the given kernels are refused."""
    monkeypatch.setattr(attention, "_logged", set())
    monkeypatch.setattr(attention, "xformers_mismatch", lambda: None)

    def set_refused(*kernels):
        monkeypatch.setattr(attention, "unsupported_reason", lambda kernel, *args: "no" if kernel in kernels else None)
    return set_refused


XFORMERS = ("xformers-full", "xformers-local", "xformers-bias")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_choice_of_a_kernel_on_cuda_in_half_precision(dtype, refuse):
    refuse()
    assert choose(Band(5), "cuda", dtype, "auto") == choose(Band(5), "cuda", dtype, "xformers") == "xformers-local"
    assert choose(Full(), "cuda", dtype, "auto") == choose(Full(), "cuda", dtype, "xformers") == "xformers-full"
    assert choose(Band(5), "cuda", dtype, "torch") == "torch-blocked"
    refuse("xformers-local")
    assert choose(Band(5), "cuda", dtype, "auto") == "torch-local"
    refuse(*XFORMERS)  # an H100 on which the build of xformers does not fit
    assert choose(Band(5), "cuda", dtype, "auto") == "torch-local"
    assert choose(Full(), "cuda", dtype, "auto") == "torch-full"
    with pytest.raises(ValueError, match="efficient_attention_backend"):
        choose(Band(5), "cuda", dtype, "xformers")
    refuse("xformers-local", "torch-local")  # a V100
    assert choose(Band(5), "cuda", dtype, "auto") == "torch-blocked"
    assert choose(Full(), "cuda", dtype, "auto") == "xformers-full"


def test_the_choice_of_a_kernel_elsewhere(refuse):
    refuse()  # flash attention is not even tried
    assert choose(Band(5), "cuda", torch.float32, "auto") == choose(Band(5), "cpu", torch.float16, "auto") == "torch-blocked"
    assert choose(Full(), "cuda", torch.float32, "auto") == choose(Full(), "cpu", torch.float16, "auto") == "torch-full"
    refuse("xformers-local")
    assert choose(Band(5), "cuda", torch.float32, "xformers") == "xformers-bias"


def test_a_build_of_xformers_that_does_not_fit_is_logged_once(refuse, caplog, monkeypatch):
    refuse(*XFORMERS)
    monkeypatch.setattr(attention, "xformers_mismatch", lambda: ("xformers 1 does not fit torch 2", "install xformers 2"))
    with caplog.at_level(logging.WARNING, logger="magnet_plugin.modules.attention"):
        for context in (Full(), Band(5)):
            choose(context, "cpu", torch.float16)
            choose(context, "cuda", torch.float32)
        assert not caplog.records  # xformers would not be used anyway
        for context in (Full(), Band(5), Band(5)):
            choose(context, "cuda", torch.float16)
    message, = (record.getMessage() for record in caplog.records)
    assert message.startswith("xformers 1 does not fit torch 2. PyTorch's kernels are used instead: torch-full")
    assert "torch-local" in message and message.endswith("; install xformers 2")


@pytest.mark.parametrize("context", [Full(), Band(5)])
def test_a_backend_that_cannot_run_is_refused(context):
    q, k, v = random_qkv(1, 1, 50, 8)
    with pytest.raises(ValueError, match="efficient_attention_backend=xformers cannot run.*set efficient_att"):
        attend(q, k, v, context, backend="xformers")
    with pytest.raises(ValueError, match="efficient_attention_backend must be one of auto, torch, xformers"):
        attend(q, k, v, context, backend="flash")


def test_invalid_arguments_are_refused():
    q, k, v = random_qkv(1, 1, 50, 8)
    with pytest.raises(ValueError, match="self-attention"):
        attend(q, k[:, :, :20], v[:, :, :20], Band(5))
    with pytest.raises(ValueError, match="one dtype"):
        attend(q, k.half(), v, Full())
    with pytest.raises(ValueError, match="floating"):
        choose(Full(), "cpu", torch.int64)


def test_auto_logs_each_choice_once(caplog, monkeypatch):
    monkeypatch.setattr(attention, "_logged", set())
    q, k, v = random_qkv(1, 1, 50, 8)
    with caplog.at_level(logging.INFO, logger="magnet_plugin.modules.attention"):
        for _ in range(3):
            attend(q, k, v, Band(5))
            attend(q, k, v, Full())
            attend(q, k, v, Full(), backend="torch")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2 and "torch-blocked runs Band attention on cpu" in messages[0] and "Full" in messages[1]


def test_a_missing_xformers_is_no_backend(monkeypatch):
    assert attention.available_backends()[:2] == ("auto", "torch")
    monkeypatch.setitem(__import__("sys").modules, "xformers.ops", None)  # makes the import fail
    assert attention.available_backends() == ("auto", "torch")
