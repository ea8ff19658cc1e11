"""Fréchet distance between two sets of clips, seen through a codec's latents: FAD without a network to download.

It tells how alike the sound of two sets is as the codec hears it. Its values compare only under one codec.
"""
from __future__ import annotations

import typing as tp

import torch

from .codec import Codec


class LatentCodec(Codec, tp.Protocol):
    """A codec whose codes can be turned into its continuous latents."""

    def decode_latent(self, codes: torch.Tensor) -> torch.Tensor:
        """[B, K, T] -> [B, D, T]."""


class Gaussian(tp.NamedTuple):
    """Mean and covariance of a set of points, in double precision."""

    mean: torch.Tensor          # [D]
    covariance: torch.Tensor    # [D, D]


def gaussian(points: torch.Tensor) -> Gaussian:
    """Statistics of points [N, D].

    Raises:
        ValueError: fewer than two points.
    """
    if points.dim() != 2 or len(points) < 2:
        raise ValueError(f"points {list(points.shape)} must be [N, D] with at least 2 of them")
    points = points.double()
    mean = points.mean(0)
    centred = points - mean
    return Gaussian(mean, centred.T @ centred / (len(points) - 1))


class Moments:
    """Sums over points that come in batches, and from several ranks, in double precision."""

    def __init__(self) -> None:
        self.count, self.total, self.products = torch.zeros(1, dtype=torch.float64), torch.empty(0), torch.empty(0)

    def add(self, points: torch.Tensor) -> None:
        """Take points [N, D] in."""
        points = points.double()
        total, products = points.sum(0), points.T @ points
        if not len(self.total):
            self.total, self.products = torch.zeros_like(total), torch.zeros_like(products)
        self.count += len(points)
        self.total += total
        self.products += products

    def over_ranks(self, reduce: tp.Callable[[torch.Tensor], tp.Any]) -> Moments:
        """These moments, of all ranks together, each of which calls this; `reduce` sums a tensor over them, in place."""
        for tensor in (self.count, self.total, self.products):
            reduce(tensor)
        return self

    def gaussian(self) -> Gaussian:
        """Statistics of all points; see `gaussian`.

        Raises:
            ValueError: fewer than two points.
        """
        count = int(self.count)
        if count < 2:
            raise ValueError(f"{count} points are too few for a distance: at least 2 are needed")
        mean = self.total / count
        return Gaussian(mean, (self.products - count * torch.outer(mean, mean)) / (count - 1))


def frechet_distance(one: Gaussian, other: Gaussian, epsilon: float = 1e-6) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), at least 0.

    The trace of the root is taken from the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: nothing turns
    complex where covariances are singular.

    Args:
        epsilon: added to the diagonals, as a share of the mean variance of both.
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
def latents(codec: LatentCodec, wav: torch.Tensor) -> torch.Tensor:
    """Latents of the codes of [B, 1, T] audio at the codec's rate, one point per frame: [B * frames, D]."""
    device = next(iter(codec.parameters())).device if isinstance(codec, torch.nn.Module) else wav.device
    codes, _ = codec.encode(wav.expand(-1, codec.channels, -1).to(device))
    return codec.decode_latent(codes).transpose(1, 2).flatten(0, 1).cpu()
