"""A repair of AudioCraft's vector quantizer: entries of a codebook that are no longer used are replaced for good."""
from __future__ import annotations

import typing as tp

import torch


@torch.no_grad()
def replace_dead_codes(codebook: tp.Any, samples: torch.Tensor, mask: torch.Tensor) -> None:
    """Replace entries by vectors of the batch, together with the moving averages that entries are computed from.

    AudioCraft only replaces the entries, and computes them from their old averages again in the same step, so that an entry
    that once is far from all vectors is never used again.

    Args:
        codebook: AudioCraft's `EuclideanCodebook`.
        samples: vectors of the batch, [N, dim].
        mask: which entries to replace, Bool [codebook_size].
    """
    from audiocraft.quantization.core_vq import sample_vectors
    size = max(float(codebook.threshold_ema_dead_code), codebook.epsilon)
    drawn = sample_vectors(samples, codebook.codebook_size)
    codebook.embed.data.copy_(torch.where(mask[:, None], drawn, codebook.embed))
    codebook.embed_avg.data.copy_(torch.where(mask[:, None], drawn * size, codebook.embed_avg))
    codebook.cluster_size.data.copy_(torch.where(mask, torch.full_like(codebook.cluster_size, size), codebook.cluster_size))
