"""Captions: the words in them, and captions that are made from the names of folders and files."""
from __future__ import annotations

import re
from pathlib import PurePosixPath

_WORD = re.compile(r"[a-z0-9]+(?:[#'][a-z0-9]*)?")
#: Two digits are a track number before anything ("07 Title"); other numbers only with leading zeros ("003 Title"), before
#: punctuation ("3. Title") or after a word that says so ("Track 3").
_TRACK = re.compile(r"^(?:(?:track|take|disc|disk|cd|side)\s*\d+|\d\d|0\d+|\d+(?=\s*[-.)]))(?:[-.]\d{1,3})?"
                    r"(?:[\s.)\-]+|$)", re.I)
#: Counters of takes and copies at the end: "(2)", "take 3", "_001".
_COUNTER = re.compile(r"(?:\s*\(\d+\)|\s+(?:take|copy|version|v)\s*\d+|\s+0\d+)$", re.I)
_DIGEST = re.compile(r"(?=.*\d)[0-9a-f]{8,}(?:-[0-9a-f]{4,})*", re.I)
#: Folders that say where files are and not how they sound.
_PLACES = {"audio", "wav", "wavs", "flac", "mp3", "ogg", "samples", "clips", "data", "files", "train", "training", "valid",
           "validation", "val", "dev", "test", "eval", "evaluate", "generate"}


def words_of(text: str) -> list[str]:
    """Split a sentence into lower-case words and numbers, as the conditioner `words` does.

    >>> words_of("A reel in F# minor")
    ['a', 'reel', 'in', 'f#', 'minor']
    """
    return _WORD.findall(text.lower())


def caption_from_name(name: str) -> str | None:
    """Make a caption from the path of a file: the names of its folders and its own, without track numbers.

    >>> caption_from_name("Irish_Reels/03 - The-Silver_Spear (2).wav")
    'Irish Reels, The Silver Spear'

    Args:
        name: path relative to the scanned folder, with `/`.
    Returns:
        The caption; None if the names contain nothing but numbers and words such as `audio`.
    """
    parts: list[str] = []
    for part in PurePosixPath(name).with_suffix("").parts:
        text = clean_name(part)
        if re.search(r"[^\W\d]", text) and text.lower() not in {*_PLACES, *(known.lower() for known in parts)}:
            parts.append(text)
    return ", ".join(parts) or None


def clean_name(name: str) -> str:
    """Remove track numbers, counters and digests from a name, and turn underscores and dashes into spaces.

    >>> clean_name("1-07_slow_air_take3"), clean_name("Planxty - The Blacksmith"), clean_name("9f86d081884c7d65")
    ('slow air', 'Planxty, The Blacksmith', '')
    """
    text = re.sub(r"[_\s]+", " ", name).strip()
    if _DIGEST.fullmatch(text):
        return ""
    text = _COUNTER.sub("", _TRACK.sub("", text))
    text = re.sub(r"\s+-+\s+", ", ", text)
    return " ".join(re.sub(r"(?<=\w)-+(?=\w)|^-+|-+$", " ", text).split()).strip(" .,")
