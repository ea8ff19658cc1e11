"""Captions of the folk set: instruments, keys, tempi, and the sentences built from them.

All captions use a closed vocabulary (`vocabulary`), so that a small word-hashing conditioner can represent every word.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Instrument:
    """An instrument of the SoundFont.

    Attributes:
        name: as captions call it.
        program: General MIDI program, counted from 0.
        low: lowest pitch that sounds natural, a MIDI number.
        high: highest such pitch.
        voices: number of notes that it can play at once.
    """

    name: str
    program: int
    low: int
    high: int
    voices: int = 1


# Without the SoundFont's accordion: it is up to two thirds of a semitone flat, so its captions would name wrong keys.
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

#: Beats per minute, and the word for them in captions.
TEMPI: dict[int, str] = {
    60: "slow", 70: "slow", 80: "slow", 90: "medium", 100: "medium", 110: "medium",
    120: "fast", 130: "fast", 140: "fast"}

TONICS: tuple[str, ...] = (
    "C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")

#: Scale steps in semitones above the tonic. The minor scale has both sevenths, because melodies use both.
MODES: dict[str, frozenset[int]] = {
    "major": frozenset((0, 2, 4, 5, 7, 9, 11)),
    "minor": frozenset((0, 2, 3, 5, 7, 8, 10, 11)),
    "dorian": frozenset((0, 2, 3, 5, 7, 9, 10)),
    "mixolydian": frozenset((0, 2, 4, 5, 7, 9, 10)),
}

#: A clip with a mean pitch (MIDI number) below the first is called low, above the second high.
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
    """Return the indefinite article for a kind of tune."""
    return "an" if kind[0] in "aeiou" else "a"


def key_name(tonic: int, mode: str) -> str:
    """Name a key, for example `B flat major`; `tonic` is a pitch class (0 is C), `mode` a key of `MODES`."""
    return f"{TONICS[tonic % 12]} {mode}"


def register_of(mean_pitch: float) -> str | None:
    """Classify a mean pitch (MIDI number) as `low`, `high` or, in between, None."""
    if mean_pitch < LOW_BELOW:
        return "low"
    return "high" if mean_pitch > HIGH_ABOVE else None


def caption(template: str, kind: str, key: str, instrument: str, bpm: int, register: str | None) -> str:
    """Fill in a template, for example to `a fast reel in D major played on the violin`.

    Args:
        template: one of `TEMPLATES`.
        kind: one of `KINDS`.
        key: see `key_name`.
        instrument: name of the instrument.
        bpm: one of `TEMPI`.
        register: see `register_of`.
    """
    suffix = f" in a {register} register" if register else ""
    return template.format(tempo=TEMPI[bpm], kind=kind, key=key, instrument=instrument, bpm=bpm,
                           register=suffix, article=article(kind))


def draw_template(rng: np.random.Generator) -> str:
    """Draw one of `TEMPLATES` with equal probability."""
    return TEMPLATES[int(rng.integers(len(TEMPLATES)))]


def vocabulary() -> list[str]:
    """List all words that captions can contain, in lower case and sorted."""
    words: set[str] = {"a", "an", "in", "register", *REGISTERS}
    for template in TEMPLATES:
        filled = template.format(tempo="", kind="", key="", instrument="", bpm="", register="", article="")
        words.update(filled.split())
    phrases = [*KINDS, *TONICS, *MODES, *TEMPI.values(), *(i.name for i in INSTRUMENTS), *map(str, TEMPI)]
    for phrase in phrases:
        words.update(phrase.lower().split())
    return sorted(words)
