"""Notes of the tunes: parsed by music21 over processes, kept in a small cache, split by tune."""
from dataclasses import asdict, dataclass
import gzip
import hashlib
import json
import os
from pathlib import Path
import tempfile
import typing as tp

from .abc_books import Source, list_sources
from .captions import MODES
from .parallel import parallel_map

CACHE_NAME = "tunes-v1.json.gz"
FINGERPRINT = 16   # intervals of a melody that tell it from others, wherever it is transposed
PHRASE = 24        # equal intervals in a row that make two tunes relatives
Notes = tp.List[tp.Tuple[float, float, int]]


@dataclass(frozen=True)
class Tune:
    """Notes as (onset, length, MIDI pitch), times in quarter notes; `bars` holds the onsets of its bars."""
    name: str
    title: str
    kind: str
    tonic: int
    mode: str
    beat: float
    notes: Notes
    bars: tp.List[float]

    @property
    def length(self) -> float:
        """Length of one time through, in quarter notes."""
        return max(onset + length for onset, length, _ in self.notes)


def cache_folder() -> Path:
    """`$MAGNET_CACHE`, or `~/.cache/magnet_plugin`."""
    return Path(os.environ.get("MAGNET_CACHE") or Path.home() / ".cache" / "magnet_plugin").expanduser()


def parse(source: Source) -> tp.Tuple[str, tp.Optional[tp.Tuple[Notes, tp.List[float]]]]:
    """Name, and notes and bar onsets of one tune; None in their place when music21 cannot read it."""
    from music21 import converter, harmony  # takes seconds to import
    try:
        score = converter.parse(source.text, format="abc")
        notes: Notes = []
        bars: tp.Set[float] = set()
        for part in score.parts:
            bars.update(round(float(m.offset), 4) for m in part.getElementsByClass("Measure"))
            for note in part.stripTies().flatten().notes:
                if isinstance(note, harmony.Harmony) or note.quarterLength <= 0:
                    continue
                onset, length = round(float(note.offset), 4), round(float(note.quarterLength), 4)
                notes.extend((onset, length, int(pitch.midi)) for pitch in note.pitches)
    except Exception:  # music21 raises all sorts of errors on odd notation; such a tune is left out
        return source.name, None
    return source.name, (sorted(notes), sorted(bars)) if notes else None


def read_cache(path: Path) -> tp.Dict[str, tp.Any]:
    """What an earlier call parsed, by tune name; empty when there is none or it is damaged."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            content = json.load(file)
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError, EOFError):
        return {}


def write_cache(path: Path, content: tp.Dict[str, tp.Any]) -> None:
    """Writes the cache under another name and moves it into place, so that readers never see half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=CACHE_NAME)
    with os.fdopen(handle, "wb") as file:
        file.write(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 6, mtime=0))
    os.replace(name, path)


def melody_intervals(notes: Notes) -> tp.List[int]:
    """Steps in semitones between the highest notes of successive onsets, repeated notes left out."""
    top: tp.Dict[float, int] = {}
    for onset, _, pitch in notes:
        top[onset] = max(pitch, top.get(onset, 0))
    line = [top[onset] for onset in sorted(top)]
    return [b - a for a, b in zip(line[:-1], line[1:]) if b != a]


def place(notes: Notes) -> float:
    """A number in [0, 1) that depends on the melody alone: equal tunes under two names land in one split."""
    digest = hashlib.sha256(repr(melody_intervals(notes)[:FINGERPRINT]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2 ** 64


def phrases(notes: Notes) -> tp.Set[tp.Tuple[int, ...]]:
    """All runs of `PHRASE` intervals of a melody."""
    steps = melody_intervals(notes)
    return {tuple(steps[i:i + PHRASE]) for i in range(max(1, len(steps) - PHRASE + 1))}


def key_is_plain(source: Source, notes: Notes) -> bool:
    """Whether the notes bear the header's key out: nearly all in its scale, and the tune ends on its tonic."""
    scale = {(source.tonic + step) % 12 for step in MODES[source.mode]}
    total = sum(length for _, length, _ in notes)
    inside = sum(length for _, length, pitch in notes if pitch % 12 in scale)
    last = max(notes)[0]
    ending = min(pitch for onset, _, pitch in notes if onset == last)
    return inside >= 0.95 * total and ending % 12 == source.tonic


def load_tunes(count: int, jobs: tp.Optional[int] = None, progress: bool = True) -> tp.List[Tune]:
    """The usable ones among the first `count` tunes of the corpus, parsed where the cache lacks them."""
    sources = list_sources()[:count]
    path = cache_folder() / CACHE_NAME
    known = read_cache(path)
    missing = [source for source in sources if source.name not in known]
    if missing:
        fresh = parallel_map(parse, missing, jobs, "parsing tunes", progress)
        known = {**read_cache(path), **dict(fresh)}
        write_cache(path, known)
    tunes = []
    for source in sources:
        if known[source.name] is None:
            continue
        notes = [(float(a), float(b), int(c)) for a, b, c in known[source.name][0]]
        if len(notes) > FINGERPRINT and key_is_plain(source, notes):
            facts = {k: v for k, v in asdict(source).items() if k not in ("text", "bar")}
            tunes.append(Tune(**facts, notes=notes, bars=[float(b) for b in known[source.name][1]]))
    return tunes


def split_tunes(tunes: tp.Sequence[Tune], splits: tp.Mapping[str, float]) -> tp.Dict[str, tp.List[Tune]]:
    """Shares tunes out by melody; where a later split's tune is a relative of an earlier split's, it is left out.

    The split of a tune depends on nothing but its melody and the shares, so that a codec and a language
    model trained on sets of other sizes or seeds never see each other's evaluation tunes.
    """
    total = sum(splits.values())
    parts: tp.Dict[str, tp.List[Tune]] = {name: [] for name in splits}
    for tune in tunes:
        at, edge = place(tune.notes) * total, 0.0
        for name, share in splits.items():
            edge += share
            if at < edge:
                parts[name].append(tune)
                break
    seen: tp.Set[tp.Tuple[int, ...]] = set()
    for name, members in parts.items():
        parts[name] = [tune for tune in members if not phrases(tune.notes) & seen]
        for tune in parts[name]:
            seen |= phrases(tune.notes)
    return parts
