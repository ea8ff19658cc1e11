import logging
import random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from magnet_plugin.modules import attention, attention_kernels
from magnet_plugin.modules.attention import Band, Context, Full, attend, choose

LENGTHS = (1, 5, 23, 24, 25, 47, 48, 49, 251, 498, 500, 1500)
gpu = pytest.mark.gpu


def reference(q, k, v, context):
    """Softmax over all pairs, from the formula."""
    scores = q.float() @ k.float().transpose(-1, -2) / q.shape[-1] ** 0.5  # [B, H, T, T]
    allowed = context.dense(q.shape[2], k.shape[2], q.device)
    return scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ v.float()


def slow_band(seq_len, width):
    return [[abs(t - s) <= width for s in range(seq_len)] for t in range(seq_len)]


def draws(*shape, seed=0, dtype=torch.float32, device="cpu", leaf=False):
    generator = torch.Generator().manual_seed(seed)
    make = [torch.randn(*shape, generator=generator).to(device, dtype) for _ in range(3)]
    return [x.requires_grad_() for x in make] if leaf else make


def test_band_means_the_frames_on_both_sides():
    for seq_len, width in [(1, 0), (6, 0), (7, 2), (9, 20)]:
        assert Band(width).dense(seq_len, seq_len).tolist() == slow_band(seq_len, width)
    assert Full().dense(2, 3).all() and Full().dense(2, 3).shape == (2, 3)


def test_xformers_window_is_the_same_band():
    fmha = pytest.importorskip("xformers.ops.fmha.attn_bias")
    for seq_len, width in [(5, 0), (20, 5), (20, 19), (33, 1)]:
        bias = fmha.LocalAttentionFromBottomRightMask(width, width).materialize((seq_len, seq_len))
        assert torch.equal(bias == 0, Band(width).dense(seq_len, seq_len)), f"{seq_len=} {width=}"


@pytest.mark.parametrize("seq_len", LENGTHS)
def test_band_equals_the_reference_at_every_length(seq_len):
    q, k, v = draws(1, 2, seq_len, 16, seed=seq_len)
    for width in (0, 1, 5, 60, seq_len - 1, seq_len, seq_len + 3):
        out = attend(q, k, v, Band(width), backend="torch")
        assert (out - reference(q, k, v, Band(width))).abs().max() < 1e-5, f"{width=}"


def test_band_and_its_gradient_equal_the_reference_at_random_shapes():
    draw = random.Random(0)
    for case in range(60):
        shape = (draw.randint(1, 3), draw.randint(1, 4), draw.randint(1, 200), draw.choice([4, 8, 20, 64]))
        width = draw.choice([0, 1, 2, 5, draw.randint(0, 250)])
        ours, theirs = (draws(*shape, seed=case, leaf=True) for _ in range(2))
        if draw.random() < 0.5:  # the layout that a projection leaves: heads after frames
            ours = [x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in ours]
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(case))
        out, expected = attend(*ours, Band(width)), reference(*theirs, Band(width))
        assert out.shape == shape
        assert (out - expected).abs().max() < 1e-5, f"{case=} {shape=} {width=}"
        (out * weight).sum().backward()
        (expected * weight).sum().backward()
        for a, b, name in zip(ours, theirs, "qkv", strict=True):
            assert (a.grad - b.grad).abs().max() < 2e-5, f"{case=} {shape=} {width=} gradient of {name}"


@pytest.mark.parametrize("seq_len", (49, 251, 500))
@pytest.mark.parametrize("width", (0, 1, 5, 13))
def test_the_receptive_field_is_the_band_exactly(seq_len, width):
    """A future key inside the band counts, as a past one does; outside of it the gradient is zero, not small."""
    for frame in {0, 1, 23, 24, 25, 48, seq_len // 2, seq_len - 2, seq_len - 1}:
        q, k, v = draws(1, 2, seq_len, 8, seed=frame, leaf=True)
        attend(q, k, v, Band(width))[:, :, frame].pow(2).sum().backward()
        inside = torch.tensor([abs(frame - s) <= width for s in range(seq_len)])
        reached = v.grad.abs().amax((0, 1, 3)) > 0
        assert torch.equal(reached, inside), f"{frame=}"
        if width:  # a lone key has the weight 1 whatever it is
            assert torch.equal(k.grad.abs().amax((0, 1, 3)) > 0, inside), f"{frame=}"


def test_no_query_of_a_block_is_left_without_keys():
    """Rows behind the clip's end too: a softmax over nothing is NaN in some kernels, and so is its gradient."""
    for seq_len, width in [(1500, 5), (1500, 0), (251, 5), (498, 13)]:
        block = attention_kernels.block_length(seq_len, width)
        mask = attention_kernels._block_mask(seq_len, width, block, block + 2 * width, torch.device("cpu"))
        assert mask.shape[1] * block >= seq_len and mask.any(-1).all(), f"{seq_len=} {width=}"


def test_full_context_looks_ahead_and_serves_cross_attention():
    q, k, v = draws(2, 3, 40, 8)
    assert (attend(q, k, v, Full()) - reference(q, k, v, Full())).abs().max() < 1e-5
    out = attend(q, k[:, :, :7], v[:, :, :7], Full())
    assert (out - reference(q, k[:, :, :7], v[:, :, :7], Full())).abs().max() < 1e-5
    for context in (Full(), Band(5)):
        moved = k.clone()
        moved[:, :, 13] += 1
        assert not torch.allclose(attend(q, k, v, context)[:, :, 10], attend(q, moved, v, context)[:, :, 10]), context


def test_any_other_context_runs_by_its_mask():
    class Causal(Context):
        def dense(self, num_queries, num_keys, device=None):
            return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril()

    q, k, v = draws(2, 3, 40, 8)
    assert choose(Causal(), "cpu", torch.float32) == "torch-dense"
    assert (attend(q, k, v, Causal()) - reference(q, k, v, Causal())).abs().max() < 1e-5


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""
    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return out


def test_memory_of_the_band_is_linear_in_the_length():
    largest = {}
    for seq_len in (1500, 3000):
        q, k, v = draws(1, 1, seq_len, 8, leaf=True)
        with Largest() as seen:
            attend(q, k, v, Band(5)).sum().backward()
        largest[seq_len] = seen.numel
    assert largest[1500] < 1500 * 1500 / 20
    assert largest[3000] < 2.2 * largest[1500]
    with Largest() as dense:  # the measure sees what it is meant to see
        attention_kernels._torch_dense(q, k, v, Band(5), 0.0)
    assert dense.numel >= 3000 * 3000


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 3e-3), (torch.float64, 1e-5)])
def test_other_dtypes_on_cpu(dtype, tolerance):
    q, k, v = draws(2, 2, 251, 16, dtype=dtype)
    out = attend(q, k, v, Band(5))
    assert out.dtype == dtype
    assert (out.float() - reference(q, k, v, Band(5))).abs().max() < tolerance


def test_dropout_is_passed_on():
    q, k, v = draws(2, 2, 251, 16)
    for context in (Full(), Band(5)):
        torch.manual_seed(0)
        kept = attend(q, k, torch.ones_like(v), context, dropout=0.0)
        assert torch.allclose(kept, torch.ones_like(kept))
        dropped = attend(q, k, torch.ones_like(v), context, dropout=0.5)  # the weights left are doubled: 1 on average
        assert dropped.std() > 0.05 and abs(dropped.mean() - 1) < 0.05


def test_kernels_chosen_for_torch():
    assert choose(Full(), "cpu", torch.float32, "torch", 500) == "torch-full"
    assert choose(Band(5), "cpu", torch.float32, "torch", 500) == "torch-blocked"
    assert choose(Band(5), "cpu", torch.float32, "torch", 20) == "torch-dense"  # one block would cover it
    assert choose(Band(5), "cpu", torch.float32, "torch", 6) == "torch-full"
    assert choose(Band(2000), "cpu", torch.float32, "auto", 1500) == "torch-full"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_kernels_chosen_on_cuda(dtype, monkeypatch):
    """Which kernel follows from what xformers accepts; no GPU is needed to ask."""
    half = dtype == torch.float16
    refused = set() if half else {"xformers-local"}
    monkeypatch.setattr(attention, "_refusal", lambda kernel, *args: "no" if kernel in refused else None)
    assert choose(Band(5), "cuda", dtype, "xformers") == ("xformers-local" if half else "xformers-bias")
    assert choose(Band(5), "cuda", dtype, "auto") == ("xformers-local" if half else "torch-blocked")
    assert choose(Full(), "cuda", dtype, "xformers") == "xformers-full"
    assert choose(Full(), "cuda", dtype, "auto") == ("xformers-full" if half else "torch-full")
    assert choose(Band(5), "cuda", dtype, "torch") == "torch-blocked"
    monkeypatch.setattr(attention, "_refusal", lambda *args: "no")
    assert choose(Band(5), "cuda", dtype, "auto") == "torch-blocked"
    with pytest.raises(ValueError, match="efficient_attention_backend"):
        choose(Band(5), "cuda", dtype, "xformers")


@pytest.mark.parametrize("context", [Full(), Band(5)])
def test_a_backend_that_cannot_run_raises(context):
    q, k, v = draws(1, 1, 50, 8)
    with pytest.raises(ValueError, match="efficient_attention_backend=xformers cannot run.*Set efficient_att"):
        attend(q, k, v, context, backend="xformers")
    with pytest.raises(ValueError, match="efficient_attention_backend must be one of auto, torch, xformers"):
        attend(q, k, v, context, backend="flash")


def test_wrong_arguments_are_refused():
    q, k, v = draws(1, 1, 50, 8)
    with pytest.raises(ValueError, match="width"):
        Band(-1)
    with pytest.raises(ValueError, match="self-attention"):
        attend(q, k[:, :, :20], v[:, :, :20], Band(5))
    with pytest.raises(ValueError, match="one dtype"):
        attend(q, k.half(), v, Full())
    with pytest.raises(ValueError, match="floating"):
        choose(Full(), "cpu", torch.int64)


def test_auto_logs_its_choice_once(caplog, monkeypatch):
    monkeypatch.setattr(attention, "_announced", set())
    q, k, v = draws(1, 1, 50, 8)
    with caplog.at_level(logging.INFO, logger="magnet_plugin.modules.attention"):
        for _ in range(3):
            attend(q, k, v, Band(5))
            attend(q, k, v, Full())
            attend(q, k, v, Full(), backend="torch")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "torch-blocked runs Band attention on cpu" in said[0] and "Full" in said[1]


def test_importing_needs_no_xformers(monkeypatch):
    assert attention.available_backends()[:2] == ("auto", "torch")
    monkeypatch.setitem(__import__("sys").modules, "xformers.ops", None)  # makes the import fail
    assert attention.available_backends() == ("auto", "torch")


@pytest.mark.parametrize("kernel", ["xformers-full", "xformers-local", "xformers-bias"])
@pytest.mark.parametrize("seq_len", [3, 16, 251])
def test_arguments_passed_to_xformers(kernel, seq_len, monkeypatch):
    """Layout and bias, with xformers' documented formula in the place of its CUDA operators."""
    ops = pytest.importorskip("xformers.ops")

    def formula(query, key, value, attn_bias=None, p=0.0):
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))  # [B, T, H, D] -> [B, H, T, D]
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if isinstance(attn_bias, torch.Tensor):
            assert attn_bias.shape == scores.shape and attn_bias.stride(-2) % 8 == 0 and attn_bias.stride(-1) == 1
            scores = scores + attn_bias
        elif attn_bias is not None:
            scores = scores + attn_bias.materialize(scores.shape)
        return (scores.softmax(-1) @ v).transpose(1, 2)

    monkeypatch.setattr(ops, "memory_efficient_attention", formula)
    monkeypatch.setattr(attention, "choose", lambda *args: kernel)
    context = Full() if kernel == "xformers-full" else Band(1)
    q, k, v = draws(2, 3, seq_len, 8)
    assert (attend(q, k, v, context) - reference(q, k, v, context)).abs().max() < 1e-5


# Half precision: the error of one rounding (2^-11, 2^-8) times the few roundings of values up to about 4.
GPU_TOLERANCE = {torch.float16: 5e-3, torch.bfloat16: 4e-2, torch.float32: 1e-4}


@gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", list(GPU_TOLERANCE), ids=str)
@pytest.mark.parametrize("context", [Full(), Band(5), Band(0)], ids=str)
@pytest.mark.parametrize("backend", ["auto", "torch", "xformers", "torch-dense", "torch-blocked", "xformers-bias"])
def test_cuda_kernels_equal_the_reference(backend, context, dtype, monkeypatch):
    if backend not in attention.BACKENDS:  # kernels that the choice passes over here must be right as well
        if isinstance(context, Full) and backend == "torch-blocked":
            pytest.skip("blocks are for bands")
        kernel = backend
        monkeypatch.setattr(attention, "choose", lambda *args: kernel)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    tolerance = GPU_TOLERANCE[dtype]
    for seq_len in (251, 498, 500, 1500):
        ours = draws(2, 4, seq_len, 64, seed=seq_len, dtype=dtype, device="cuda", leaf=True)
        theirs = [x.detach().float().requires_grad_() for x in ours]
        weight = torch.randn(ours[0].shape, generator=torch.Generator().manual_seed(1)).to("cuda")
        out, expected = attend(*ours, context, backend), reference(*theirs, context)
        assert out.dtype == dtype
        assert (out.float() - expected).abs().max() < tolerance, f"{seq_len=}"
        (out.float() * weight).sum().backward()
        (expected * weight).sum().backward()
        for a, b, name in zip(ours, theirs, "qkv", strict=True):
            bound = 4 * tolerance * max(1.0, b.grad.abs().max().item())
            assert (a.grad.float() - b.grad).abs().max() < bound, f"{seq_len=} gradient of {name}"


@gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("context", [Full(), Band(5)], ids=str)
def test_cuda_receptive_field(context):
    for backend in ("auto", "torch", "xformers"):
        q, k, v = draws(1, 2, 500, 64, dtype=torch.float16, device="cuda", leaf=True)
        attend(q, k, v, context, backend)[:, :, 200].float().pow(2).sum().backward()
        inside = context.dense(500, 500)[200]
        assert torch.equal((v.grad.abs().amax((0, 1, 3)) > 0).cpu() | inside, inside), f"{backend} looks outside"
        assert (v.grad.abs().amax((0, 1, 3)) > 0)[201:206].all(), f"{backend} does not look ahead"
