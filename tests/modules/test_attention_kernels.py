"""The kernels of attention: masks of blocks, memory, arguments of xformers, and results on CUDA."""
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from magnet_plugin.modules import attention, attention_kernels, attention_probe
from magnet_plugin.modules.attention import attend
from magnet_plugin.modules.context import Band, Full

from ..helpers.attention import GPU_TOLERANCE, assert_equal_to_the_formula, random_qkv, reference_attention


def test_every_query_of_a_block_has_a_key():
    """Queries after the end of the clip too: in some kernels, a softmax over no keys is NaN, and so is its gradient."""
    for seq_len, width in [(1500, 5), (1500, 0), (251, 5), (498, 13)]:
        block = attention_kernels.block_length(seq_len, width)
        mask = attention_kernels._block_mask(seq_len, width, block, block + 2 * width, torch.device("cpu"))
        assert mask.shape[1] * block >= seq_len and mask.any(-1).all(), f"{seq_len=} {width=}"


def test_the_mask_of_blocks_is_built_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = [], attention_kernels._block_mask
    monkeypatch.setattr(attention_kernels, "_block_mask", lambda *args: built.append(args) or build(*args))
    context, (q, k, v) = Band(5), random_qkv(2, 2, 100, 8)
    for _ in range(3):
        with torch.inference_mode():
            found = attend(q, k, v, context)
    assert len(built) == 1 and context == Band(5) and hash(context) == hash(Band(5)) and str(context) == "Band(width=5)"
    attend(q.requires_grad_(), k, v, context).sum().backward()      # With the mask that decoding has made.
    assert len(built) == 1
    for other in (Band(5), Band(7)):
        assert torch.equal(attend(q, k, v, other), found) == (other.width == 5)
    attend(q[:, :, :80], k[:, :, :80], v[:, :, :80], context)
    attend(q.detach().half(), k.half(), v.half(), context)
    assert len(built) == 5


@pytest.mark.parametrize("seq_len, width", [(25, 5), (49, 12), (498, 13), (500, 5), (60, 0)])
@pytest.mark.parametrize("more", [0, 3])
def test_windows_are_the_same_with_and_without_gradients(seq_len, width, more):
    """For training they are copied, for decoding they share memory; `more` keys align them for CUDA."""
    block = attention_kernels.block_length(seq_len, width)
    count, window = -(-seq_len // block), block + 2 * width + more
    x = torch.arange(2.0 * seq_len).view(1, 2, seq_len, 1)
    views, copies = (attention_kernels._windows(y, width, block, window, count) for y in (x, x.clone().requires_grad_()))
    assert torch.equal(views, copies) and copies.is_contiguous()
    for row in range(2):
        for n in range(count):
            frames = range(n * block - width, n * block - width + window)
            assert views[row, n, :, 0].tolist() == [row * seq_len + t if 0 <= t < seq_len else 0 for t in frames]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("context", [Full(), Band(5)], ids=str)
def test_training_in_16_bits_on_a_cpu_computes_attention_in_float32(context, autocast):
    """The results are those of float32 on the rounded inputs, rounded once; decoding keeps the kernels of 16 bits."""
    q, k, v = random_qkv(1, 2, 80, 8, dtype=torch.bfloat16, leaf=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = attend(q, k, v, context)
    exact = attend(q.float(), k.float(), v.float(), context)
    assert out.dtype == torch.bfloat16 and torch.equal(out, exact.bfloat16())
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    for one, other in zip(torch.autograd.grad(out, (q, k, v), upstream),
                          torch.autograd.grad(exact, (q, k, v), upstream.float()), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        assert not torch.equal(attend(q, k, v, context), exact.bfloat16())


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returned."""
    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return out


def test_the_memory_of_a_band_grows_linearly_with_the_length():
    largest = {}
    for seq_len in (1500, 3000):
        q, k, v = random_qkv(1, 1, seq_len, 8, leaf=True)
        with LargestTensor() as seen:
            attend(q, k, v, Band(5)).sum().backward()
        largest[seq_len] = seen.numel
    assert largest[1500] < 1500 * 1500 / 20
    assert largest[3000] < 2.2 * largest[1500]
    with LargestTensor() as dense:  # a kernel with a mask over all pairs is measured as such
        attention_kernels._torch_dense(q, k, v, Band(5), 0.0)
    assert dense.numel >= 3000 * 3000


@pytest.mark.parametrize("kernel", ["xformers-full", "xformers-local", "xformers-bias"])
@pytest.mark.parametrize("seq_len", [3, 16, 251])
def test_xformers_is_called_with_its_layout_and_the_right_bias(kernel, seq_len, monkeypatch):
    """The formula that xformers documents stands in for its CUDA operators."""
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
    q, k, v = random_qkv(2, 3, seq_len, 8)
    assert (attend(q, k, v, context) - reference_attention(q, k, v, context)).abs().max() < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(GPU_TOLERANCE), ids=str)
@pytest.mark.parametrize("context", [Full(), Band(5), Band(0)], ids=str)
@pytest.mark.parametrize("backend", ["auto", "torch", "xformers", "torch-dense", "torch-blocked", "xformers-bias"])
def test_kernels_on_cuda_equal_the_formula(backend, context, dtype, monkeypatch):
    if backend.startswith("xformers") and attention_probe.xformers_mismatch():
        pytest.skip(attention_probe.xformers_mismatch()[0])
    if backend not in attention.BACKENDS:  # a kernel that `choose` would not choose here
        if isinstance(context, Full) and backend == "torch-blocked":
            pytest.skip("blocks are for bands")
        kernel = backend
        monkeypatch.setattr(attention, "choose", lambda *args: kernel)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    for seq_len in (251, 498, 500, 1500):
        ours = random_qkv(2, 4, seq_len, 64, seed=seq_len, dtype=dtype, device="cuda", leaf=True)
        assert_equal_to_the_formula(lambda *qkv: attend(*qkv, context, backend), ours, context, GPU_TOLERANCE[dtype],
                                    f"{seq_len=}")


@pytest.mark.gpu
@pytest.mark.parametrize("context", [Full(), Band(5)], ids=str)
def test_the_receptive_field_on_cuda_is_the_context(context):
    backends = ("auto", "torch") if attention_probe.xformers_mismatch() else ("auto", "torch", "xformers")
    for backend in backends:
        q, k, v = random_qkv(1, 2, 500, 64, dtype=torch.float16, device="cuda", leaf=True)
        attend(q, k, v, context, backend)[:, :, 200].float().pow(2).sum().backward()
        reached = (v.grad.abs().amax((0, 1, 3)) > 0).cpu()
        assert torch.equal(reached, context.dense(500, 500)[200]), backend
