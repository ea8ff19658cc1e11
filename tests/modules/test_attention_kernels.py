"""The kernels of attention: masks of blocks, memory, arguments of xformers, and results on CUDA."""
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from magnet_plugin.modules import attention, attention_kernels, attention_probe
from magnet_plugin.modules.attention import attend
from magnet_plugin.modules.context import Band, Full

from ..helpers.attention import flash_attention_on_cpu, random_qkv, reference_attention

torch_local = attention_kernels.KERNELS["torch-local"]


def test_every_query_of_a_block_has_a_key():
    """Queries after the end of the clip too: in some kernels, a softmax over no keys is NaN, and so is its gradient."""
    for seq_len, width in [(1500, 5), (1500, 0), (251, 5), (498, 13)]:
        block = attention_kernels.block_length(seq_len, width)
        mask = attention_kernels._block_mask(seq_len, width, block, block + 2 * width, torch.device("cpu"))
        assert mask.shape[1] * block >= seq_len and mask.any(-1).all(), f"{seq_len=} {width=}"


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


def assert_equal_to_the_formula(run, ours, context, tolerance, case=""):
    """Compare the output and the gradients of leaf tensors q, k and v; those of a random loss, relative to the largest."""
    theirs = [x.detach().float().requires_grad_() for x in ours]
    weight = torch.randn(ours[0].shape, generator=torch.Generator().manual_seed(1)).to(ours[0].device)
    out, expected = run(*ours), reference_attention(*theirs, context)
    assert out.dtype == ours[0].dtype and out.shape == expected.shape
    assert (out.float() - expected).abs().max() < tolerance, case
    (out.float() * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b, name in zip(ours, theirs, "qkv", strict=True):
        bound = 4 * tolerance * max(1.0, b.grad.abs().max().item())
        assert (a.grad.float() - b.grad).abs().max() < bound, f"{case} gradient of {name}"


@pytest.mark.parametrize("head_dim", [48, 64, 20])  # 20 has to be padded
def test_torch_local_equals_the_formula(head_dim):
    """The formula stands in for PyTorch's CUDA operator; its gradient is reached through PyTorch's autograd."""
    with flash_attention_on_cpu():
        for seq_len, width in [(1, 5), (1, 0), (11, 5), (11, 0), (500, 5), (501, 3)]:
            ours = random_qkv(2, 3, seq_len, head_dim, seed=seq_len, leaf=True)
            assert_equal_to_the_formula(lambda *qkv, width=width: torch_local(*qkv, Band(width), 0.0), ours, Band(width),
                                        1e-5, f"{seq_len=} {width=}")


@pytest.mark.parametrize("layout", ["projection", "frames first", "channels first", "every other channel", "odd offset",
                                    "odd stride"])
def test_torch_local_takes_any_memory_layout(layout):
    def arrange(x):  # [B, H, T, D] with other strides
        if layout == "projection":  # q, k and v in one row
            return torch.cat([x.transpose(1, 2)] * 3, dim=-1)[..., 16:32].transpose(1, 2)
        if layout == "frames first":
            return x.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)
        if layout == "channels first":
            return x.transpose(2, 3).contiguous().transpose(2, 3)
        if layout == "every other channel":
            return x.repeat_interleave(2, dim=3)[..., ::2]
        if layout == "odd offset":
            return torch.cat([torch.zeros(1), x.flatten()])[1:].view(x.shape)
        return torch.cat([x, x[..., :1]], dim=-1)[..., :16]

    ours = [arrange(x).detach().requires_grad_() for x in random_qkv(2, 3, 30, 16)]
    with flash_attention_on_cpu():
        assert_equal_to_the_formula(lambda *qkv: torch_local(*qkv, Band(2), 0.0), ours, Band(2), 1e-5)


def assert_dropout_of_torch_local(device, dtype, tolerance):
    """The output is linear in v, so with one dropout mask in both directions, <weight, out> equals <gradient of v, v>."""
    q, k, v, weight = (x.to(device, dtype) for x in (*random_qkv(2, 2, 500, 64), random_qkv(2, 2, 500, 64, seed=1)[0]))
    v.requires_grad_()
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        out = torch_local(q, k, v, Band(5), 0.5)
        outs.append(out.detach())
        gradient, = torch.autograd.grad(out, v, weight)
        direct, through = ((a.double() * b.double()).sum() for a, b in ((weight, out), (gradient, v)))
        assert (direct - through).abs() < tolerance * (weight.double() * out.double()).abs().sum()
    assert torch.equal(outs[0], outs[1]) and not torch.allclose(outs[0], outs[2])
    torch.manual_seed(0)
    ones = torch_local(q, k, torch.ones_like(v), Band(5), 0.5)  # sums of weights: dropped or doubled, 1 on average
    assert ones.std() > 0.05 and abs(ones.float().mean() - 1) < 0.05


def test_torch_local_uses_one_dropout_mask_in_both_directions():
    with flash_attention_on_cpu():
        assert_dropout_of_torch_local("cpu", torch.float32, 1e-5)


class FlashCalls(TorchDispatchMode):
    """Records the calls of flash attention: name, number of frames, dropout and keyword arguments."""
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "_flash_attention" in str(func):
            values = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False))
            given = [values[name] for name in ("max_q", "max_k", "dropout_p")]
            self.calls.append((func.__name__.partition(".")[0], *given, kwargs))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", attention_probe.HALF, ids=str)
@pytest.mark.parametrize("head_dim", [20, 48, 64])
def test_torch_local_calls_the_operators_of_this_torch(head_dim, dtype):
    """Fake CUDA tensors check devices and dtypes; tensors without data run through autograd as well."""
    for seq_len in (1, 11, 500, 501, 1500):
        with FakeTensorMode():
            q, k, v = (torch.empty(2, 3, seq_len, head_dim, dtype=dtype, device="cuda") for _ in range(3))
            out = torch_local(q, k, v, Band(5), 0.1)
        assert (out.shape, out.dtype, out.device) == (q.shape, dtype, torch.device("cuda:0"))
        q, k, v = (torch.empty(2, seq_len, 3, head_dim, dtype=dtype, device="meta").transpose(1, 2).requires_grad_()
                   for _ in range(3))
        with FlashCalls() as seen:
            torch_local(q, k, v, Band(5), 0.1).sum().backward()
        assert q.grad.shape == k.grad.shape == v.grad.shape == q.shape and q.grad.dtype == dtype
        settings = {"scale": head_dim ** -0.5, "window_size_left": 5, "window_size_right": 5}
        assert seen.calls == [(f"_flash_attention_{direction}", seq_len, seq_len, 0.1, settings)
                              for direction in ("forward", "backward")]


GPU_TOLERANCE = {dtype: attention_probe.TOLERANCES[dtype] for dtype in (torch.float16, torch.bfloat16, torch.float32)}


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


def skip_without_torch_local(dtype, head_dim=64):
    reason = attention_probe.unsupported_reason("torch-local", "cuda", dtype, head_dim)
    if reason and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip(reason)
    assert reason is None, reason


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", attention_probe.HALF, ids=str)
@pytest.mark.parametrize("head_dim", [20, 48, 64])
@pytest.mark.parametrize("seq_len", [1, 11, 500, 501, 1500])
def test_torch_local_on_cuda_equals_the_formula(seq_len, head_dim, dtype, monkeypatch):
    skip_without_torch_local(dtype, head_dim)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    for width in (0, 5, 13):
        ours = random_qkv(2, 4, seq_len, head_dim, seed=seq_len, dtype=dtype, device="cuda", leaf=True)
        assert_equal_to_the_formula(lambda *qkv, width=width: torch_local(*qkv, Band(width), 0.0), ours, Band(width),
                                    GPU_TOLERANCE[dtype], f"{width=}")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", attention_probe.HALF, ids=str)
def test_torch_local_on_cuda_uses_one_dropout_mask_in_both_directions(dtype):
    skip_without_torch_local(dtype)
    assert_dropout_of_torch_local("cuda", dtype, GPU_TOLERANCE[dtype])


@pytest.mark.gpu
@pytest.mark.parametrize("context", [Full(), Band(5)], ids=str)
def test_the_receptive_field_on_cuda_is_the_context(context):
    backends = ("auto", "torch") if attention_probe.xformers_mismatch() else ("auto", "torch", "xformers")
    for backend in backends:
        q, k, v = random_qkv(1, 2, 500, 64, dtype=torch.float16, device="cuda", leaf=True)
        attend(q, k, v, context, backend)[:, :, 200].float().pow(2).sum().backward()
        reached = (v.grad.abs().amax((0, 1, 3)) > 0).cpu()
        assert torch.equal(reached, context.dense(500, 500)[200]), backend
