"""Scores with their intervals as Markdown, for `magnet evaluate` and for the pages of results."""
from __future__ import annotations

import typing as tp

from .markdown import markdown

#: Heads of the columns; the arrow points to where better clips are.
HEADS = {"instruments": "instrument recognised ↑", "notes_per_second": "notes per second", "in_key": "share in key ↑",
         "range": "range, semitones", "voices": "voices", "frechet": "Fréchet distance ↓",
         "kernel_codec": "kernel distance, codec ↓", "kernel_timbre": "kernel distance, timbre ↓"}


def table(rows: tp.Mapping[str, tp.Mapping[str, tp.Sequence[float]]]) -> str:
    """Return a table with one line per row, and a column for each score that a row has."""
    columns = [name for name in HEADS if any(name in scores for scores in rows.values())]
    return markdown(["", *(HEADS[name] for name in columns)],
                    [[row, *(cell(scores.get(name)) for name in columns)] for row, scores in rows.items()])


def cell(interval: tp.Optional[tp.Sequence[float]], form: str = ".3g") -> str:
    """Return `0.52 [0.48, 0.55]`, or a dash for None.

    Args:
        interval: value, and the ends of its interval.
        form: format of the numbers.
    """
    if interval is None:
        return "–"
    value, low, high = (format(number, form) for number in interval)
    return f"{value} [{low}, {high}]"
