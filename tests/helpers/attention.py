"""Inputs of attention, and its formula."""
import typing as tp

import torch

from magnet_plugin.modules.context import Context


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
