"""What the notes of a clip say about its melody: how many there are, their range, and whether they are in the key."""
from __future__ import annotations

import typing as tp
from collections.abc import Sequence

from .harmony import scale
from .notes import Note

NAMES = ("notes_per_second", "in_key", "range", "voices")


def melody(notes: Sequence[Note], seconds: float, key: str) -> dict[str, float]:
    """Describe transcribed notes.

    Args:
        notes: of one clip.
        seconds: length of the clip.
        key: of its caption, such as `B flat major`.
    Returns:
        `notes_per_second`; `in_key`, the share of sounding time of notes in the key's scale, 0 without notes; `range`, from
        the lowest to the highest note in semitones; `voices`, the mean number of notes that sound while any does.
    Raises:
        ValueError: there is no such key.
    """
    classes = scale(key)
    lengths = [length for _, length, _ in notes]
    sounding, total = _union(notes), sum(lengths)
    pitches = [pitch for _, _, pitch in notes] or [0]
    inside = sum(length for _, length, pitch in notes if pitch % 12 in classes)
    return {"notes_per_second": len(notes) / seconds, "in_key": inside / total if total else 0.0,
            "range": float(max(pitches) - min(pitches)), "voices": total / sounding if sounding else 0.0}


def _union(notes: tp.Iterable[Note]) -> float:
    """Seconds in which at least one note sounds."""
    sounding, end = 0.0, 0.0
    for start, length, _ in sorted(notes):
        sounding += max(start + length - max(start, end), 0.0)
        end = max(end, start + length)
    return sounding
