"""Schedules of the iterative decoding: mask rate, guidance and temperature against the step (paper, section 3.1-3.3)."""
import math

import torch

TEMPERATURE_FLOOR = 1e-2


def mask_rate(t: torch.Tensor) -> torch.Tensor:
    """Cosine mask rate cos(pi t / 2).

    Args:
        t: share of the way done, in [0, 1], any shape.
    Returns:
        Share of the free positions that is masked, same shape, from 1 to 0.
    """
    return torch.cos(t * math.pi * 0.5)


def mask_rates(steps: int) -> torch.Tensor:
    """Mask rate of each of `steps` steps, float32 [steps], on the CPU: float64 would mask one position more or less
    where the rate times the length lies near a whole number, and devices differ in the last bit."""
    return mask_rate(torch.linspace(0, 1, steps, dtype=torch.float32))


def guidance_at(rate: float, start: float, end: float) -> float:
    """Coefficient of classifier-free guidance at a mask rate: from `start` (all masked) to `end` (nothing masked)."""
    return rate * start + (1 - rate) * end


def temperature_at(step: int, steps: int, start: float, anneal: bool = True) -> float:
    """Softmax temperature of a step (0-based). Falls linearly and ends at the floor, so that the last step is nearly
    greedy; the first of s steps is at start * (s - 1) / s."""
    value = start * (steps - 1 - step) / steps if anneal else start
    return max(value, TEMPERATURE_FLOOR)
