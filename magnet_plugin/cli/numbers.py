"""Argument types of numbers with a lower bound."""
from __future__ import annotations

import argparse
import math
import typing as tp


def integer_from(lowest: int) -> tp.Callable[[str], int]:
    """Return a parser of integers that are at least `lowest`, for `type=` of an argument."""
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer; give {lowest} or more") from None
        if number < lowest:
            raise argparse.ArgumentTypeError(f"{number} is too small; give {lowest} or more")
        return number
    return parse


def number_above(bound: float) -> tp.Callable[[str], float]:
    """Return a parser of finite numbers that are greater than `bound`, for `type=` of an argument."""
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number; give one above {bound:g}") from None
        if not bound < number < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not valid; give a number above {bound:g}")
        return number
    return parse
