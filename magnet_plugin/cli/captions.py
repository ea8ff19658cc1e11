"""Options that add to a text: `--bpm` and `--key`, and texts that set in later.

They are checked before torch and AudioCraft are imported.
"""
from __future__ import annotations

import argparse
import typing as tp

from ..decoding.option_types import real
from ..models.wishes import add_wishes

Timed = list[tuple[float, str]]


def add_options(one: argparse.ArgumentParser) -> None:
    """Add `--bpm` and `--key`."""
    one.add_argument("--bpm", type=float, metavar="N", help="tempo in beats per minute, from 20 to 400, added to the text "
                     "as words; a model follows it as far as its captions had such words")
    one.add_argument("--key", metavar="KEY", help="tonic and mode, such as \"F# minor\", added to the text in the same way")


def add_timed(one: argparse.ArgumentParser) -> None:
    """Add `--at`."""
    one.add_argument("--at", nargs=2, action="append", metavar=("SECONDS", "TEXT"), dest="timed",
                     help="text that is added to the description from this time on, in place of the one before it; may be "
                          "repeated. It takes effect window by window, in clips longer than the model was trained on")


def check(texts: tp.Iterable[str | None], bpm: float | None, key: str | None) -> None:
    """Raise ValueError if tempo or key is invalid, or if a clip has no text that they can be added to."""
    add_wishes("", bpm, key)
    given = " and ".join(name for name, value in (("--bpm", bpm), ("--key", key)) if value is not None)
    if given and None in texts:
        raise ValueError(f"{given}: needs a text to be added to, for each clip")


def check_timed(timed: tp.Iterable[tp.Sequence[tp.Any]] | None) -> Timed:
    """Return what `--at` was given.

    Raises:
        ValueError: a time is invalid.
    """
    found = []
    for entry in timed or ():
        try:
            start, text = float(entry[0]), str(entry[1])
            if real("--at", start) < 0:
                raise ValueError
        except (TypeError, ValueError, IndexError):
            raise ValueError(f"--at {' '.join(map(str, entry))}: give seconds, at least 0, and a text") from None
        found.append((start, text))
    return found
