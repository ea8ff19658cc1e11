"""Kernel audio distance: unbiased squared maximum mean discrepancy between two sets of embeddings (arXiv 2502.15602).

Unlike the Fréchet distance it assumes no normal distribution, and its expectation does not depend on the number of clips.
"""
from __future__ import annotations

import torch


def bandwidth(embeddings: torch.Tensor) -> float:
    """Compute the median distance between two embeddings [N, D] of real clips.

    Raises:
        ValueError: there are fewer than two, or most are equal.
    """
    if embeddings.dim() != 2 or len(embeddings) < 2:
        raise ValueError(f"embeddings {list(embeddings.shape)} must have the shape [N, D], with N at least 2")
    median = float(torch.pdist(embeddings.double()).median())
    if not median > 0:
        raise ValueError("most embeddings of the real clips are equal; give different clips")
    return median


class KernelDistance:
    """The distance between generated and real clips, from all their similarities, which are computed once.

    Args:
        generated: embeddings [S, N, D] of N generated clips by each of S seeds.
        real: embeddings [N, D] of the real clips with the same captions.
    """

    def __init__(self, generated: torch.Tensor, real: torch.Tensor) -> None:
        width = bandwidth(real)
        self.within = torch.stack([_kernel(one, one, width) for one in generated])
        self.across = torch.stack([_kernel(one, real, width) for one in generated])
        self.real = _kernel(real, real, width)

    def __call__(self, selected: torch.Tensor) -> float:
        """Compute the distance for the clips that a mask, Bool [N], selects: the mean over the seeds."""
        within = torch.stack([_mean_of_pairs(one[selected][:, selected]) for one in self.within]).mean()
        across = self.across[:, selected][:, :, selected].mean()
        return float(within + _mean_of_pairs(self.real[selected][:, selected]) - 2 * across)


def _kernel(one: torch.Tensor, other: torch.Tensor, width: float) -> torch.Tensor:
    """Gaussian similarities [N, M] of embeddings [N, D] and [M, D]."""
    return torch.exp(-torch.cdist(one.double(), other.double()).square() / (2 * width ** 2))


def _mean_of_pairs(kernel: torch.Tensor) -> torch.Tensor:
    """Mean over pairs of different clips."""
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))
