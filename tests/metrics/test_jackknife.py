"""The jackknife agrees with formulas that are known, and finds a bias."""
import pytest
import torch

from magnet_plugin.metrics.jackknife import NORMAL, jackknife


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, low, high = jackknife(lambda kept: float(values[kept].mean()), 40)
    error = float(values.std()) / 40 ** 0.5
    assert value == pytest.approx(float(values.mean()))
    assert (low, high) == pytest.approx((value - NORMAL * error, value + NORMAL * error))


def test_the_bias_of_the_variance_is_corrected() -> None:
    values = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    biased = jackknife(lambda kept: float(values[kept].var(unbiased=False)), 12)
    corrected = jackknife(lambda kept: float(values[kept].var(unbiased=False)), 12, correct=True)
    assert biased[0] == pytest.approx(float(values.var(unbiased=False)))
    assert corrected[0] == pytest.approx(float(values.var(unbiased=True)))


def test_two_clips_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least 3 clips, not 2"):
        jackknife(lambda kept: 0.0, 2)
