"""The attention kernel `torch-local`: a band by PyTorch's flash attention."""
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from magnet_plugin.modules import attention_kernels, attention_probe
from magnet_plugin.modules.context import Band

from ..helpers.attention import GPU_TOLERANCE, assert_equal_to_the_formula, flash_attention_on_cpu, random_qkv

torch_local = attention_kernels.KERNELS["torch-local"]


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
