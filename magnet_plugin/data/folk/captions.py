"""Words of the folk set: instruments, keys, tempi and the sentences made of them.

Every sentence is made of a closed list of words (`vocabulary`), so that a small word-hashing
conditioner can tell all of them apart.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Instrument:
    """A General MIDI program (counted from 0) and the pitches (MIDI numbers) on which it sounds natural.

    `voices` is how many notes it can play at once.
    """

    name: str
    program: int
    low: int
    high: int
    voices: int = 1


# The SoundFont's accordion is left out: it is up to two thirds of a semitone flat, and keys would not be true.
INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument("violin", 40, 55, 95, voices=2),
    Instrument("cello", 42, 36, 74, voices=2),
    Instrument("flute", 73, 60, 96),
    Instrument("clarinet", 71, 50, 88),
    Instrument("trumpet", 56, 54, 84),
    Instrument("bagpipe", 109, 57, 86),
    Instrument("organ", 19, 36, 90, voices=16),
    Instrument("harpsichord", 6, 36, 90, voices=16),
    Instrument("piano", 0, 33, 98, voices=16),
    Instrument("guitar", 24, 38, 79, voices=6),
    Instrument("banjo", 105, 48, 84, voices=4),
    Instrument("xylophone", 13, 60, 100, voices=2),
)

KINDS: tuple[str, ...] = (
    "reel", "jig", "slip jig", "hornpipe", "strathspey", "clog", "fling", "air", "waltz", "chorale")

#: Beats a minute, and the word that stands for them.
TEMPI: dict[int, str] = {
    60: "slow", 70: "slow", 80: "slow", 90: "medium", 100: "medium", 110: "medium",
    120: "fast", 130: "fast", 140: "fast"}

TONICS: tuple[str, ...] = (
    "C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")

#: Pitch classes above the tonic. The minor scale has both sevenths, as melodies use both.
MODES: dict[str, frozenset[int]] = {
    "major": frozenset((0, 2, 4, 5, 7, 9, 11)),
    "minor": frozenset((0, 2, 3, 5, 7, 8, 10, 11)),
    "dorian": frozenset((0, 2, 3, 5, 7, 9, 10)),
    "mixolydian": frozenset((0, 2, 4, 5, 7, 9, 10)),
}

#: Mean pitch (MIDI number) under which a clip is called low, and above which it is called high.
LOW_BELOW, HIGH_ABOVE = 57.0, 77.0
REGISTERS = ("low", "high")

TEMPLATES: tuple[str, ...] = (
    "a {tempo} {kind} in {key} played on the {instrument}{register}",
    "{instrument} playing a {tempo} {kind} in {key}{register}",
    "a {tempo} {kind} on the {instrument}{register} in {key} at {bpm} bpm",
    "{tempo} {instrument} {kind} in {key}{register}",
    "{article} {kind} in {key} played on the {instrument}{register} at {bpm} bpm",
    "the {instrument} plays {article} {kind} in {key} at a {tempo} tempo{register}",
)


def article(kind: str) -> str:
    """`a` or `an`, as the kind of tune wants it."""
    return "an" if kind[0] in "aeiou" else "a"


def key_name(tonic: int, mode: str) -> str:
    """Name of a key, as `B flat major`; `tonic` is a pitch class (0 is C), `mode` a key of `MODES`."""
    return f"{TONICS[tonic % 12]} {mode}"


def register_of(mean_pitch: float) -> str | None:
    """`low`, `high`, or None for what lies between; `mean_pitch` is a MIDI number."""
    if mean_pitch < LOW_BELOW:
        return "low"
    return "high" if mean_pitch > HIGH_ABOVE else None


def caption(template: str, kind: str, key: str, instrument: str, bpm: int, register: str | None) -> str:
    """One sentence, as `a fast reel in D major played on the violin`; lower case but for the tonic's letter."""
    suffix = f" in a {register} register" if register else ""
    return template.format(tempo=TEMPI[bpm], kind=kind, key=key, instrument=instrument, bpm=bpm,
                           register=suffix, article=article(kind))


def draw_template(rng: np.random.Generator) -> str:
    """One of the sentence forms, all equally likely."""
    return TEMPLATES[int(rng.integers(len(TEMPLATES)))]


def vocabulary() -> list[str]:
    """All words that a caption can hold, in lower case, sorted."""
    words: set[str] = {"a", "an", "in", "register", *REGISTERS}
    for template in TEMPLATES:
        filled = template.format(tempo="", kind="", key="", instrument="", bpm="", register="", article="")
        words.update(filled.split())
    phrases = [*KINDS, *TONICS, *MODES, *TEMPI.values(), *(i.name for i in INSTRUMENTS), *map(str, TEMPI)]
    for phrase in phrases:
        words.update(phrase.lower().split())
    return sorted(words)
