"""Argument types of numbers."""
from __future__ import annotations

import argparse
import math
import typing as tp


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose `type=int` and `type=float` say what to give in the place of a wrong number."""

    def __init__(self, *args: tp.Any, **kwargs: tp.Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", int, whole_number)
        self.register("type", float, any_number)


def whole_number(text: str) -> int:
    """Parse an integer, for `type=` of an argument."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer; give a whole number") from None


def any_number(text: str) -> float:
    """Parse a number, for `type=` of an argument; the command checks its range."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; give one such as 1.5") from None


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
