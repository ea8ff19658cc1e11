"""The kernel distance agrees with its definition, and does not depend on the number of clips."""
import math

import pytest
import torch

from magnet_plugin.metrics.kernel_distance import KernelDistance, bandwidth


def points(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) + shift


def by_definition(one: torch.Tensor, other: torch.Tensor, width: float) -> float:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.exp(-float((a - b).double().square().sum()) / (2 * width ** 2))

    def within(x: torch.Tensor) -> float:
        pairs = [kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(a, b) for a in one for b in other]
    return within(one) + within(other) - 2 * sum(across) / len(across)


def test_it_is_the_unbiased_discrepancy_of_the_selected_clips_and_averages_seeds() -> None:
    made, real = torch.stack([points(9, 0, 0.5), points(9, 1, 0.5)]), points(9, 2)
    kept = torch.arange(9) % 3 > 0
    expected = sum(by_definition(one[kept], real[kept], bandwidth(real)) for one in made) / 2
    assert KernelDistance(made, real)(kept) == pytest.approx(expected, rel=1e-6)


def test_clips_of_one_distribution_are_at_distance_zero_on_average_and_others_are_not() -> None:
    everything = torch.ones(30, dtype=torch.bool)
    same = [KernelDistance(points(30, 2 * seed)[None], points(30, 2 * seed + 1))(everything) for seed in range(60)]
    other = KernelDistance(points(30, 0, 1.0)[None], points(30, 1))(everything)
    assert abs(sum(same) / len(same)) < 0.01 and min(same) < 0 < max(same)
    assert other > 5 * max(same)


def test_equal_clips_have_no_bandwidth() -> None:
    with pytest.raises(ValueError, match="equal"):
        bandwidth(torch.ones(4, 3))
