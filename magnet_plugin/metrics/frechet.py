"""Fréchet distance between two sets of clips in the latents of the model's codec.

This is the Fréchet audio distance with the codec in place of VGGish, so that nothing has to be downloaded. Values are
only comparable under the same codec.
"""
from __future__ import annotations

import typing as tp

import torch

from .codec import Codec, encode, one_channel


class Gaussian(tp.NamedTuple):
    """Mean and covariance of a set of points, in float64."""

    mean: torch.Tensor          # [D]
    covariance: torch.Tensor    # [D, D]


class Moments:
    """Running first and second moments of points that arrive in batches and on several ranks, in float64."""

    def __init__(self) -> None:
        self.count, self.total, self.products = torch.zeros(1, dtype=torch.float64), torch.empty(0), torch.empty(0)

    def add(self, points: torch.Tensor) -> None:
        """Add points [N, D]."""
        points = points.double()
        total, products = points.sum(0), points.T @ points
        if not len(self.total):
            self.total, self.products = torch.zeros_like(total), torch.zeros_like(products)
        self.count += len(points)
        self.total += total
        self.products += products

    @classmethod
    def sum_of(cls, parts: tp.Sequence[Moments]) -> Moments:
        """Return the moments of the points of all parts together."""
        whole = cls()
        whole.count, whole.total, whole.products = (
            torch.stack([getattr(part, name) for part in parts]).sum(0) for name in ("count", "total", "products"))
        return whole

    def reduce(self, all_reduce: tp.Callable[[torch.Tensor], tp.Any]) -> None:
        """Sum the moments over all ranks, each of which has to call this; `all_reduce` sums a tensor in place."""
        for tensor in (self.count, self.total, self.products):
            all_reduce(tensor)

    def gaussian(self) -> Gaussian:
        """Compute the mean and the covariance of all points.

        Raises:
            ValueError: there are fewer than two points.
        """
        count = int(self.count)
        if count < 2:
            raise ValueError(f"the Fréchet distance needs at least 2 points, not {count}")
        mean = self.total / count
        return Gaussian(mean, (self.products - count * torch.outer(mean, mean)) / (count - 1))


def frechet_distance(one: Gaussian, other: Gaussian, epsilon: float = 1e-6) -> float:
    """Compute |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), which is at least 0.

    The trace of the root is the sum of the square roots of the eigenvalues of C1^(1/2) C2 C1^(1/2). Unlike
    `scipy.linalg.sqrtm` of C1 C2, which is not symmetric, this stays real and accurate for singular covariances.

    Args:
        epsilon: added to the diagonals of both covariances, relative to their mean variance.
    """
    size = len(one.mean)
    scale = (one.covariance.trace() + other.covariance.trace()) / (2 * size)
    ridge = epsilon * scale * torch.eye(size, dtype=torch.float64)
    first, second = one.covariance + ridge, other.covariance + ridge
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    middle = root @ second @ root
    trace_root = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp_min(0).sqrt().sum()
    distance = (one.mean - other.mean).pow(2).sum() + first.trace() + second.trace() - 2 * trace_root
    return max(0.0, float(distance))


@torch.no_grad()
def latents(codec: Codec, wav: torch.Tensor) -> torch.Tensor:
    """Compute the quantised latents of mono audio [B, 1, T] at the codec's sample rate, one row a frame: [B * frames, D]."""
    codec = one_channel(codec)
    codes, _ = encode(codec, wav)
    return codec.decode_latent(codes).transpose(1, 2).flatten(0, 1).cpu()
