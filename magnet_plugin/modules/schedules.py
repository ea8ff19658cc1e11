"""Schedules of the decoding: mask rate, guidance scale and temperature as functions of the step (sections 3.1 to 3.3)."""
import math

import torch

TEMPERATURE_FLOOR = 1e-2


def mask_rate(t: torch.Tensor) -> torch.Tensor:
    """Compute the cosine mask rate cos(pi t / 2).

    Args:
        t: progress within the stage, in [0, 1], any shape.
    Returns:
        Fraction of the free frames that is masked, same shape, from 1 to 0.
    """
    return torch.cos(t * math.pi * 0.5)


def mask_rates(steps: int) -> torch.Tensor:
    """Compute the mask rate of each of `steps` steps, float32 [steps] on the CPU.

    AudioCraft computes them in float32. In float64, or on another device, the rate times the length can round to a
    different number of frames.
    """
    return mask_rate(torch.linspace(0, 1, steps, dtype=torch.float32))


def guidance_at(rate: float, start: float, end: float) -> float:
    """Compute the guidance scale at a mask rate: from `start` (all masked) to `end` (nothing masked)."""
    return rate * start + (1 - rate) * end


def temperature_at(step: int, steps: int, start: float, anneal: bool = True) -> float:
    """Compute the softmax temperature of a step, counted from 0.

    It falls linearly from start * (steps - 1) / steps to the floor, so that the last step is nearly greedy.
    """
    value = start * (steps - 1 - step) / steps if anneal else start
    return max(value, TEMPERATURE_FLOOR)
