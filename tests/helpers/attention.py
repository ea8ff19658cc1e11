"""Inputs of attention, and its formula."""
import contextlib
import typing as tp

import torch

from magnet_plugin.modules import attention_probe
from magnet_plugin.modules.context import Context

GPU_TOLERANCE = {dtype: attention_probe.TOLERANCES[dtype] for dtype in (torch.float16, torch.bfloat16, torch.float32)}


def reference_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: Context) -> torch.Tensor:
    """The formula with a mask over all pairs of frames, in float32."""
    scores = q.float() @ k.float().transpose(-1, -2) / q.shape[-1] ** 0.5                           # [B, H, T, T]
    allowed = context.dense(q.shape[2], k.shape[2], q.device)
    return scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ v.float()


def random_qkv(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu", leaf: bool = False
               ) -> list[tp.Any]:
    """Queries, keys and values of one shape; with `leaf`, they require gradients."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(*shape, generator=generator).to(device, dtype) for _ in range(3)]
    return [x.requires_grad_() for x in made] if leaf else made


def assert_equal_to_the_formula(run: tp.Callable[..., torch.Tensor], ours: list[torch.Tensor], context: Context,
                                tolerance: float, case: str = "") -> None:
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


@contextlib.contextmanager
def flash_attention_on_cpu() -> tp.Iterator[None]:
    """Give ATen's flash attention, which exists for CUDA only, a CPU kernel: its formula, with its demands on the layout."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_flash_attention_forward", _flash_forward, "CPU")
        library.impl("_flash_attention_backward", _flash_backward, "CPU")
        yield


def _flash_weights(q: torch.Tensor, k: torch.Tensor, dropout_p: float, rng_state: torch.Tensor, scale: float, left: int,
                   right: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention weights [B, H, T, T] of q and k [B, T, H, D], and what dropout multiplies them with."""
    offset = torch.arange(k.shape[1]) - torch.arange(q.shape[1])[:, None]
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale
    weights = scores.masked_fill((offset < -left) | (offset > right), float("-inf")).softmax(-1)
    generator = torch.Generator().manual_seed(int(rng_state[0]))
    return weights, (torch.rand(weights.shape, generator=generator) >= dropout_p) / (1 - dropout_p)


def _flash_forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cum_seq_q: None, cum_seq_k: None, max_q: int,
                   max_k: int, dropout_p: float, is_causal: bool, return_debug_mask: bool, *, scale: float,
                   window_size_left: int, window_size_right: int) -> tuple[torch.Tensor, ...]:
    assert (max_q, max_k) == (q.shape[1], k.shape[1]) and not is_causal
    for x in (q, k, v):
        assert x.shape[-1] % 8 == 0 and x.stride(-1) == 1
        assert not any(n % 8 for n in (x.storage_offset(), *x.stride()[:-1])), "rows are not aligned"
    rng_state = torch.randint(2 ** 31, (2,))
    weights, kept = _flash_weights(q, k, dropout_p, rng_state, scale, window_size_left, window_size_right)
    out = torch.einsum("bhqk,bkhd->bqhd", weights * kept, v)
    return out, q.new_zeros(q.shape[:3]), rng_state, q.new_zeros(()), q.new_zeros(0)


def _flash_backward(grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor,
                    logsumexp: torch.Tensor, cum_seq_q: None, cum_seq_k: None, max_q: int, max_k: int, dropout_p: float,
                    is_causal: bool, rng_state: torch.Tensor, unused: torch.Tensor, *, scale: float, window_size_left: int,
                    window_size_right: int) -> tuple[torch.Tensor, ...]:
    weights, kept = _flash_weights(q, k, dropout_p, rng_state, scale, window_size_left, window_size_right)
    of_weights = torch.einsum("bqhd,bkhd->bhqk", grad, v) * kept
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * scale
    return (torch.einsum("bhqk,bkhd->bqhd", of_scores, k), torch.einsum("bhqk,bqhd->bkhd", of_scores, q),
            torch.einsum("bhqk,bqhd->bkhd", weights * kept, grad))
