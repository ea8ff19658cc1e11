"""The notes of the tunes: parsed by music21 in parallel, cached on disk, and assigned to splits by melody."""
from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...environment import atomic_write, cache_dir
from ..parallel import parallel_map
from .captions import MODES
from .sources import Source, list_sources

CACHE_NAME = "tunes-v2.json.gz"
FINGERPRINT = 16    # number of intervals that identify a melody, in any key
PHRASE = 24         # two tunes that share this many intervals in a row are related
ROUNDING = 0.01     # tolerance in quarter notes; onsets are rounded, because a third of a beat has no exact decimal
MIN_TUNE_IN_KEY = 0.95  # required `share_in_scale` of a whole tune
Notes = list[tuple[float, float, int]]    # (onset, length, MIDI pitch)


@dataclass(frozen=True)
class Tune:
    """A parsed tune.

    Attributes:
        source: its header.
        notes: (onset, length, MIDI pitch), times in quarter notes.
        bars: onsets of its bars, in quarter notes.
    """

    source: Source
    notes: Notes
    bars: list[float]

    @property
    def length(self) -> float:
        """Length of the tune in quarter notes."""
        return max(onset + length for onset, length, _ in self.notes)

    @property
    def voices(self) -> int:
        """Largest number of notes that begin at the same time."""
        onsets = [onset for onset, _, _ in self.notes]
        return max(len(list(group)) for _, group in itertools.groupby(sorted(onsets)))


def parse(source: Source) -> tuple[str, tuple[Notes, list[float]] | None]:
    """Parse a tune with music21: its name, and its notes and bar onsets, or None if music21 cannot read it."""
    from music21 import converter  # takes seconds to import
    text, form = source.read()
    notes: Notes = []
    bars: set[float] = set()
    try:
        score: Any = converter.parse(text, format=form)
        for part in score.parts:
            bars.update(round(float(measure.offset), 4) for measure in part.getElementsByClass("Measure"))
            notes.extend(part_notes(part))
    except Exception:  # noqa: BLE001 - music21 raises many kinds of errors on unusual notation
        return source.name, None
    return source.name, (sorted(notes), sorted(bars)) if notes else None


def part_notes(part: Any) -> Notes:
    """List the notes of a music21 part, with tied notes joined (music21's `stripTies` would double the parsing time)."""
    notes: Notes = []
    for element in part.flatten().notes:
        if element.quarterLength <= 0 or "Harmony" in element.classes:
            continue   # grace notes and chord symbols
        onset, length = round(float(element.offset), 4), round(float(element.quarterLength), 4)
        for note in getattr(element, "notes", [element]):   # the notes of a chord, or the note
            pitch = int(note.pitch.midi)
            if note.tie is not None and note.tie.type in ("stop", "continue"):
                held = next((i for i in reversed(range(len(notes))) if notes[i][2] == pitch
                             and abs(notes[i][0] + notes[i][1] - onset) < ROUNDING), None)
                if held is not None:
                    notes[held] = (notes[held][0], round(notes[held][1] + length, 4), pitch)
                    continue
            notes.append((onset, length, pitch))
    return notes


def read_cache(path: Path) -> dict[str, Any]:
    """Read the cache: tune name to result of `parse`; empty if the file is missing or damaged."""
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, ValueError, EOFError):
        return {}
    return content if isinstance(content, dict) else {}


def write_cache(path: Path, content: dict[str, Any]) -> None:
    """Write the cache, so that no reader sees an incomplete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 6, mtime=0))


def outline(notes: Notes, lowest: bool = False) -> list[int]:
    """Return the highest (or lowest) pitch that sounds at each onset."""
    line, held = [], list[tuple[float, float, int]]()
    for onset, group in itertools.groupby(sorted(notes), key=lambda note: note[0]):
        held = [note for note in held if note[0] + note[1] > onset + ROUNDING] + list(group)
        pitches = [pitch for _, _, pitch in held]
        line.append(min(pitches) if lowest else max(pitches))
    return line


def melody_intervals(notes: Notes) -> list[int]:
    """Return the intervals of the melody in semitones, without repeated notes."""
    return [b - a for a, b in itertools.pairwise(outline(notes)) if b != a]


def hash_melody(notes: Notes) -> float:
    """Hash the beginning of the melody to [0, 1), so that a tune with two names gets into one split."""
    digest = hashlib.sha256(repr(melody_intervals(notes)[:FINGERPRINT]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2 ** 64


def phrases(notes: Notes) -> set[tuple[int, ...]]:
    """Return all runs of `PHRASE` intervals in a melody."""
    steps = melody_intervals(notes)
    return {tuple(steps[i:i + PHRASE]) for i in range(max(1, len(steps) - PHRASE + 1))}


def share_in_scale(notes: Notes, tonic: int, mode: str) -> float:
    """Compute the share of the sounding time of `notes` that is in a scale; `tonic` is a pitch class (0 is C)."""
    scale = {(tonic + step) % 12 for step in MODES[mode]}
    return sum(length for _, length, pitch in notes if pitch % 12 in scale) / sum(length for _, length, _ in notes)


def matches_key(source: Source, notes: Notes) -> bool:
    """Return whether the notes confirm the header's key: nearly all are in its scale, and the bass ends on its tonic."""
    share = share_in_scale(notes, source.tonic, source.mode)
    return share >= MIN_TUNE_IN_KEY and outline(notes, lowest=True)[-1] % 12 == source.tonic


def load_tunes(count: int, jobs: int | None = None, progress: bool = True) -> list[Tune]:
    """Load the usable tunes among the first `count` of `list_sources`, parsing those that are not in the cache.

    Args:
        count: number of tunes to consider.
        jobs: number of processes; None uses all available cores.
        progress: show a progress bar.
    """
    sources = list_sources()[:count]
    path = cache_dir(CACHE_NAME)
    known = read_cache(path)
    missing = [source for source in sources if source.name not in known]
    if missing:
        fresh = parallel_map(parse, missing, jobs, "parsing tunes", progress)
        known = {**read_cache(path), **dict(fresh)}
        write_cache(path, known)
    tunes = []
    for source in sources:
        if known[source.name] is not None:
            notes = [(float(onset), float(length), int(pitch)) for onset, length, pitch in known[source.name][0]]
            if len(notes) > FINGERPRINT and matches_key(source, notes):
                tunes.append(Tune(source, notes, [float(bar) for bar in known[source.name][1]]))
    return tunes


def split_tunes(tunes: Sequence[Tune], splits: Mapping[str, float]) -> dict[str, list[Tune]]:
    """Assign tunes to splits by melody, and drop tunes that are related to a tune of an earlier split.

    The split depends only on the melody and the shares. A codec and a language model that are trained on sets of
    different size or seed therefore never train on each other's evaluation tunes.

    Args:
        tunes: what to assign.
        splits: split name to share, relative to their sum.
    """
    total = sum(splits.values())
    parts: dict[str, list[Tune]] = {name: [] for name in splits}
    edges = list(itertools.accumulate(share / total for share in splits.values()))
    for tune in tunes:
        at = hash_melody(tune.notes)
        name = next((name for name, edge in zip(splits, edges, strict=True) if at < edge), list(splits)[-1])
        parts[name].append(tune)
    seen: set[tuple[int, ...]] = set()
    for name, members in parts.items():
        parts[name] = [tune for tune in members if not phrases(tune.notes) & seen]
        for tune in parts[name]:
            seen |= phrases(tune.notes)
    return parts
