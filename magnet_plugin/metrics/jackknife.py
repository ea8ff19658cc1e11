"""Jackknife: bias and interval of a statistic of a set of clips, from its values without each of them."""
from __future__ import annotations

import math
import typing as tp

import torch

NORMAL = 1.959964       # standard deviations on either side of the mean that hold 95% of a normal distribution


def jackknife(statistic: tp.Callable[[torch.Tensor], float], count: int, correct: bool = False) -> list[float]:
    """Compute a statistic and its 95% interval: [value, low, high].

    Unlike the bootstrap, this never draws a clip twice, which would bias distances between pairs of clips.

    Args:
        statistic: of the clips that a mask, Bool [count], selects.
        count: number of clips.
        correct: subtract the estimate of the bias, for statistics that are biased by 1 / count.
    Raises:
        ValueError: there are fewer than three clips.
    """
    if count < 3:
        raise ValueError(f"an interval needs at least 3 clips, not {count}")
    everything = torch.ones(count, dtype=torch.bool)
    value, without = statistic(everything), []
    for clip in range(count):
        everything[clip] = False
        without.append(statistic(everything))
        everything[clip] = True
    left = torch.tensor(without, dtype=torch.float64)
    if correct:
        value = count * value - (count - 1) * float(left.mean())
    error = math.sqrt((count - 1) / count * float((left - left.mean()).square().sum()))
    return [value, value - NORMAL * error, value + NORMAL * error]
