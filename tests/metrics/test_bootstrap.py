"""Bootstrap intervals."""
import pytest
import torch

from magnet_plugin.metrics.bootstrap import mean_interval


def test_the_interval_of_equal_values_is_a_point_and_holds_the_mean_otherwise() -> None:
    assert mean_interval(torch.full((3, 5), 2.5)) == [2.5, 2.5, 2.5]
    values = torch.randn(3, 24, generator=torch.Generator().manual_seed(0)) + 5
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(float(values.mean())) and low < mean < high
    assert mean_interval(values) == [mean, low, high], "the draws are always the same"


def test_the_interval_of_many_clips_is_that_of_the_normal_distribution() -> None:
    values = torch.randn(1, 400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean, low, high = mean_interval(values)
    expected = 1.96 * float(values.std()) / 20
    assert high - mean == pytest.approx(expected, rel=0.1) and mean - low == pytest.approx(expected, rel=0.1)


def test_seeds_are_resampled_too() -> None:
    """All clips agree, and seeds differ: the uncertainty is that of three seeds, however many clips there are."""
    values = torch.tensor([[0.0], [0.0], [3.0]]).expand(3, 500)
    assert mean_interval(values) == [1.0, 0.0, 3.0]


@pytest.mark.parametrize("values", [torch.ones(4), torch.ones(0, 3), torch.tensor([[1.0, float("nan")]])])
def test_values_that_have_no_interval_are_refused(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be finite and have the shape \[seeds, clips\]"):
        mean_interval(values)
