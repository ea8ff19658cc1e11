"""The jackknife agrees with formulas that are known, and finds a bias."""
import pytest
import torch

from magnet_plugin.metrics.jackknife import NORMAL, Jackknife


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, low, high = Jackknife.of(lambda kept: float(values[kept].mean()), 40).interval()
    error = float(values.std()) / 40 ** 0.5
    assert value == pytest.approx(float(values.mean()))
    assert (low, high) == pytest.approx((value - NORMAL * error, value + NORMAL * error))


def test_the_bias_of_the_variance_is_corrected() -> None:
    values = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    biased = Jackknife.of(lambda kept: float(values[kept].var(unbiased=False)), 12).interval()
    corrected = Jackknife.of(lambda kept: float(values[kept].var(unbiased=False)), 12, correct=True).interval()
    assert biased[0] == pytest.approx(float(values.var(unbiased=False)))
    assert corrected[0] == pytest.approx(float(values.var(unbiased=True)))


def test_two_clips_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least 3 clips, not 2"):
        Jackknife.of(lambda kept: 0.0, 2)


def test_the_interval_of_a_difference_is_that_of_the_paired_values() -> None:
    """Both statistics contain the same large differences between clips, which the difference does not."""
    generator = torch.Generator().manual_seed(2)
    shared, small = 10 * torch.randn(30, generator=generator), torch.randn(30, generator=generator)

    def mean(values: torch.Tensor) -> Jackknife:
        return Jackknife.of(lambda kept: float(values[kept].double().mean()), 30)

    found = mean(shared + small).minus(mean(shared)).interval()
    assert found == pytest.approx(mean(small).interval(), abs=1e-5)
    with pytest.raises(ValueError, match="30 clips cannot be compared with 4"):
        mean(shared).minus(Jackknife.of(lambda kept: 0.0, 4))
