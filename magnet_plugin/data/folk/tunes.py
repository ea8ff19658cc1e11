"""Notes of the tunes: parsed by music21 over processes, kept in a small cache, shared out by melody."""
from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...environment import cache_dir
from ..parallel import parallel_map
from .captions import MODES
from .sources import Source, list_sources

CACHE_NAME = "tunes-v2.json.gz"
FINGERPRINT = 16    # intervals of a melody that tell it from others, wherever it is transposed
PHRASE = 24         # equal intervals in a row that make two tunes relatives
ROUNDING = 0.01     # quarter notes; onsets are rounded, a third of a beat has no exact decimal
Notes = list[tuple[float, float, int]]


@dataclass(frozen=True)
class Tune:
    """A tune's facts (see `Source`), its notes as (onset, length, MIDI pitch), and the onsets of its bars.

    Times are in quarter notes.
    """

    source: Source
    notes: Notes
    bars: list[float]

    @property
    def length(self) -> float:
        """Length of one time through."""
        return max(onset + length for onset, length, _ in self.notes)

    @property
    def voices(self) -> int:
        """The largest number of notes that begin at once."""
        onsets = [onset for onset, _, _ in self.notes]
        return max(len(list(group)) for _, group in itertools.groupby(sorted(onsets)))


def parse(source: Source) -> tuple[str, tuple[Notes, list[float]] | None]:
    """Name, and notes and bar onsets of one tune; None in their place when music21 cannot read it."""
    from music21 import converter  # takes seconds to import
    text, form = source.read()
    notes: Notes = []
    bars: set[float] = set()
    try:
        score: Any = converter.parse(text, format=form)
        for part in score.parts:
            bars.update(round(float(measure.offset), 4) for measure in part.getElementsByClass("Measure"))
            notes.extend(part_notes(part))
    except Exception:  # noqa: BLE001 - music21 raises all sorts of errors on odd notation; such a tune is left out
        return source.name, None
    return source.name, (sorted(notes), sorted(bars)) if notes else None


def part_notes(part: Any) -> Notes:
    """Notes of a music21 part, tied ones joined (music21's own `stripTies` would double the time of parsing)."""
    notes: Notes = []
    for element in part.flatten().notes:
        if element.quarterLength <= 0 or "Harmony" in element.classes:
            continue   # grace notes, chord names over the staff
        onset, length = round(float(element.offset), 4), round(float(element.quarterLength), 4)
        for note in getattr(element, "notes", [element]):   # of a chord, or the note itself
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
    """What an earlier call parsed, by tune name; empty when there is none or it is damaged."""
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, ValueError, EOFError):
        return {}
    return content if isinstance(content, dict) else {}


def write_cache(path: Path, content: dict[str, Any]) -> None:
    """Writes the cache under another name and moves it into place, so that readers never see half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    part.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 6, mtime=0))
    os.replace(part, path)


def outline(notes: Notes, lowest: bool = False) -> list[int]:
    """Highest (or lowest) pitch that sounds at each onset."""
    line, held = [], list[tuple[float, float, int]]()
    for onset, group in itertools.groupby(sorted(notes), key=lambda note: note[0]):
        held = [note for note in held if note[0] + note[1] > onset + ROUNDING] + list(group)
        pitches = [pitch for _, _, pitch in held]
        line.append(min(pitches) if lowest else max(pitches))
    return line


def melody_intervals(notes: Notes) -> list[int]:
    """Steps of the melody in semitones, repeated notes left out."""
    return [b - a for a, b in itertools.pairwise(outline(notes)) if b != a]


def place(notes: Notes) -> float:
    """A number in [0, 1) that depends on the melody alone: equal tunes under two names land in one split."""
    digest = hashlib.sha256(repr(melody_intervals(notes)[:FINGERPRINT]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2 ** 64


def phrases(notes: Notes) -> set[tuple[int, ...]]:
    """All runs of `PHRASE` intervals of a melody."""
    steps = melody_intervals(notes)
    return {tuple(steps[i:i + PHRASE]) for i in range(max(1, len(steps) - PHRASE + 1))}


def key_is_plain(source: Source, notes: Notes) -> bool:
    """Whether the notes bear the header's key out: nearly all in its scale, and the bass ends on its tonic."""
    scale = {(source.tonic + step) % 12 for step in MODES[source.mode]}
    total = sum(length for _, length, _ in notes)
    inside = sum(length for _, length, pitch in notes if pitch % 12 in scale)
    return inside >= 0.95 * total and outline(notes, lowest=True)[-1] % 12 == source.tonic


def load_tunes(count: int, jobs: int | None = None, progress: bool = True) -> list[Tune]:
    """The usable ones among the first `count` tunes of the corpus, parsed where the cache lacks them."""
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
            if len(notes) > FINGERPRINT and key_is_plain(source, notes):
                tunes.append(Tune(source, notes, [float(bar) for bar in known[source.name][1]]))
    return tunes


def split_tunes(tunes: Sequence[Tune], splits: Mapping[str, float]) -> dict[str, list[Tune]]:
    """Shares tunes out by melody; where a later split's tune is a relative of an earlier split's, it is left out.

    The split of a tune depends on nothing but its melody and the shares, so that a codec and a language
    model trained on sets of other sizes or seeds never see each other's evaluation tunes.
    """
    total = sum(splits.values())
    parts: dict[str, list[Tune]] = {name: [] for name in splits}
    edges = list(itertools.accumulate(share / total for share in splits.values()))
    for tune in tunes:
        at = place(tune.notes)
        name = next((name for name, edge in zip(splits, edges, strict=True) if at < edge), list(splits)[-1])
        parts[name].append(tune)
    seen: set[tuple[int, ...]] = set()
    for name, members in parts.items():
        parts[name] = [tune for tune in members if not phrases(tune.notes) & seen]
        for tune in parts[name]:
            seen |= phrases(tune.notes)
    return parts
