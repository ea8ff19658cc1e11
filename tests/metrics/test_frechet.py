"""Fréchet distance of Gaussians, compared with closed forms and SciPy's matrix square root."""
import numpy as np
import pytest
import scipy.linalg
import torch

from magnet_plugin.metrics.frechet import Gaussian, Moments, frechet_distance, latents

from ..helpers.tones import RATE, RoundingCodec


def diagonal(mean: list[float], variances: list[float]) -> Gaussian:
    return Gaussian(torch.tensor(mean, dtype=torch.float64), torch.diag(torch.tensor(variances, dtype=torch.float64)))


def test_diagonal_covariances_agree_with_the_closed_form() -> None:
    one, other = diagonal([0, 1, 2], [1, 4, 9]), diagonal([3, 1, -2], [4, 4, 1])
    # |m1 - m2|^2 = 9 + 16; sum of (s1 - s2)^2 = 1 + 0 + 4
    assert frechet_distance(one, other) == pytest.approx(30, rel=1e-5)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_full_covariances_agree_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    roots = [rng.normal(size=(6, 6)) for _ in range(2)]
    means, covariances = rng.normal(size=(2, 6)), [root @ root.T + 0.1 * np.eye(6) for root in roots]
    one, other = (Gaussian(torch.from_numpy(m), torch.from_numpy(c)) for m, c in zip(means, covariances, strict=True))
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-3), seed
    assert frechet_distance(other, one) == pytest.approx(frechet_distance(one, other), rel=1e-6)


def test_singular_covariances_are_supported() -> None:
    flat, still = diagonal([0, 0], [1, 0]), diagonal([0, 0], [0, 0])
    assert frechet_distance(flat, still) == pytest.approx(1, rel=0.01)
    assert frechet_distance(still, still) == 0


def test_fit_gaussian_gives_mean_and_covariance_of_the_points() -> None:
    points = torch.randn(20000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0]) + 5
    (moments := Moments()).add(points)
    drawn = moments.gaussian()
    assert frechet_distance(drawn, diagonal([5, 5], [1, 9])) < 0.01 < frechet_distance(drawn, diagonal([5, 4], [1, 9]))


def test_moments_of_batches_equal_those_of_all_points() -> None:
    generator = torch.Generator().manual_seed(0)
    points = 3 + torch.randn(57, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    moments, exact = Moments(), points.double().numpy()
    for part in points.split(20):
        moments.add(part)
    found = moments.gaussian()
    assert np.allclose(found.mean, exact.mean(0)) and np.allclose(found.covariance, np.cov(exact.T))
    (single := Moments()).add(points[:1])
    with pytest.raises(ValueError, match="at least 2 points, not 1"):
        single.gaussian()


def test_latents_have_one_row_per_frame() -> None:
    wav = torch.randn(2, 1, RATE, generator=torch.Generator().manual_seed(0))
    codec = RoundingCodec()
    points = latents(codec, wav)
    codes, _ = codec.encode(wav)
    assert points.shape == (2 * (RATE // 16 + 1), 9)
    assert torch.equal(points[1], codec.decode_latent(codes)[0, :, 1])            # the second frame of the first clip
