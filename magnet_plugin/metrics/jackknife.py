"""Jackknife: bias and interval of a statistic of a set of clips, from its values without each of them."""
from __future__ import annotations

import dataclasses
import math
import typing as tp

import torch

NORMAL = 1.959964       # standard deviations on either side of the mean that hold 95% of a normal distribution


@dataclasses.dataclass(frozen=True)
class Jackknife:
    """A statistic of a set of clips.

    Attributes:
        value: of all clips, corrected for its bias if that was asked for.
        without: its values without each of the clips in turn, not corrected.
    """
    value: float
    without: tuple[float, ...]

    @staticmethod
    def of(statistic: tp.Callable[[torch.Tensor], float], count: int, correct: bool = False) -> Jackknife:
        """Compute a statistic of all clips, and without each of them.

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
        if correct:
            value = count * value - (count - 1) * sum(without) / count
        return Jackknife(value, tuple(without))

    def interval(self) -> list[float]:
        """Return [value, low, high], a 95% interval.

        Unlike the bootstrap, this never draws a clip twice, which would bias distances between pairs of clips.
        """
        left = torch.tensor(self.without, dtype=torch.float64)
        count = len(left)
        error = math.sqrt((count - 1) / count * float((left - left.mean()).square().sum()))
        return [self.value, self.value - NORMAL * error, self.value + NORMAL * error]

    def minus(self, other: Jackknife) -> Jackknife:
        """Return the difference to the same statistic of another set, clip for clip.

        Its interval is narrower than the two intervals suggest, because both sets have the same captions.

        Raises:
            ValueError: the sets differ in their number of clips.
        """
        if len(self.without) != len(other.without):
            raise ValueError(f"{len(self.without)} clips cannot be compared with {len(other.without)}")
        return Jackknife(self.value - other.value,
                         tuple(mine - theirs for mine, theirs in zip(self.without, other.without)))
