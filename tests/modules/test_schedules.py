"""Schedules of mask rate, guidance scale and temperature."""
import math

import pytest
import torch

from magnet_plugin.modules.schedules import guidance_at, mask_rates, temperature_at


def test_mask_rates_are_a_float32_cosine() -> None:
    """float64 rates can round to another number of frames than AudioCraft's."""
    rates = mask_rates(10)
    assert rates.dtype == torch.float32
    assert rates.tolist() == pytest.approx([math.cos(math.pi / 2 * step / 9) for step in range(10)], abs=1e-6)


def test_guidance_falls_with_the_mask_rate() -> None:
    assert [guidance_at(rate, 10, 1) for rate in (1.0, 0.5, 0.0)] == [10, 5.5, 1]


def test_temperature_is_annealed_down_to_a_floor() -> None:
    assert [temperature_at(step, 10, 3.0) for step in (0, 5, 9)] == pytest.approx([2.7, 1.2, 0.01])
    assert temperature_at(9, 10, 3.0, anneal=False) == 3.0
