"""The tunes in music21's corpus: their text and what their headers say.

This only reads files of music21, without importing it, so that listing all tunes takes about a second.
"""
from __future__ import annotations

import hashlib
import importlib.util
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .captions import KINDS

BOOKS = ("ryansMammoth", "oneills1850")
ABC_TONICS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ABC_MODES = {"": "major", "maj": "major", "ion": "major", "m": "minor", "min": "minor", "aeo": "minor",
             "dor": "dorian", "mix": "mixolydian"}
KIND_NAMES = {"double jig": "jig", "slipjig": "slip jig", "highland fling": "fling"}
METERS = ("2/4", "3/4", "4/4", "C", "C|", "2/2", "6/8", "9/8", "12/8")
FOUR_BEATS = ("strathspey", "fling", "air", "chorale")   # counted in quarter notes; others in half notes


@dataclass(frozen=True)
class Source:
    """A tune's file and the facts in its header.

    Attributes:
        name: unique name, for example `oneills1850/BOOK/NUMBER`.
        title: as the header gives it.
        artist: composer, or `traditional`.
        kind: one of `captions.KINDS`.
        tonic: pitch class of the key, 0 is C.
        mode: one of `captions.MODES`.
        beat: length of a counted beat, in quarter notes.
        path: the file.
        number: number of the tune in a file of ABC tunes; None for a MusicXML file, which holds one score.
    """

    name: str
    title: str
    artist: str
    kind: str
    tonic: int
    mode: str
    beat: float
    path: Path
    number: str | None = None

    def read(self) -> tuple[str, str]:
        """Return the text of the tune and music21's name of its format."""
        if self.number is None:
            return read_mxl(self.path), "musicxml"
        return dict(abc_blocks(self.path))[self.number], "abc"


def package_folder(package: str) -> Path:
    """Find the folder of an installed package without importing it.

    Raises:
        ValueError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{package}, which the folk data set needs, is not installed; run `pip install {package}`")
    return Path(next(iter(spec.submodule_search_locations)))


def abc_blocks(path: Path) -> list[tuple[str, str]]:
    """Split a file of ABC tunes into (number, text) pairs."""
    text = path.read_text(encoding="utf-8", errors="replace")
    blocks = re.split(r"(?m)^(?=X:)", text)
    numbers = [re.match(r"X:\s*(\d+)", block) for block in blocks]
    return [(number.group(1), block) for number, block in zip(numbers, blocks, strict=True) if number]


def read_key(field: str) -> tuple[int, str] | None:
    """Parse an ABC `K:` field into tonic (pitch class) and mode; None if captions have no word for the key."""
    match = re.fullmatch(r"([A-G])([#b]?)\s*([A-Za-z]*)\s*", field)
    if match is None:
        return None
    letter, sign, word = match.groups()
    mode = ABC_MODES.get(word if len(word) < 2 else word.lower()[:3])
    if mode is None:
        return None
    return (ABC_TONICS[letter] + {"#": 1, "b": -1, "": 0}[sign]) % 12, mode


def counted_beat(kind: str, meter: str) -> float:
    """Return the length of the beat that a dancer or singer would count, in quarter notes."""
    if meter.endswith("/8"):
        return 1.5
    return 1.0 if meter in ("2/4", "3/4") or kind in FOUR_BEATS else 2.0


def read_abc(name: str, path: Path, number: str, text: str) -> Source | None:
    """Read the header of an ABC tune.

    Args:
        name: unique name of the tune.
        path: file of the tune.
        number: its number in the file.
        text: its text.
    Returns:
        The tune, or None if kind, key or metre are missing, unknown or change within the tune: no caption would be correct
        for all of its crops.
    """
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = re.match(r"([A-Z]):(.*)", line)
        if match:
            fields.setdefault(match.group(1), []).append(match.group(2).split("%")[0].strip())
    kinds = {kind.lower() for kind in fields.get("R", [])}
    keys, meters = set(fields.get("K", [])), set(fields.get("M", []))
    if len(kinds) != 1 or len(keys) != 1 or len(meters) != 1 or re.search(r"\[[KM]:", text):
        return None
    kind, meter, key = kinds.pop(), meters.pop(), read_key(keys.pop())
    kind = KIND_NAMES.get(kind, kind)
    if kind == "jig" and meter == "9/8":
        kind = "slip jig"
    if kind not in KINDS or meter not in METERS or key is None:
        return None
    title = " ".join(fields.get("T", [name])[0].split())
    return Source(name, title, "traditional", kind, *key, counted_beat(kind, meter), path, number)


def read_mxl(path: Path) -> str:
    """Read the score in a compressed MusicXML file."""
    with zipfile.ZipFile(path) as archive:
        score = next(n for n in archive.namelist() if n.endswith((".xml", ".musicxml")) and "META-INF" not in n)
        return archive.read(score).decode("utf-8", errors="replace")


def read_chorale(path: Path) -> Source | None:
    """Read key and metre of a Bach chorale; None if there are several of them or the mode is missing."""
    text = read_mxl(path)
    fifths = set(re.findall(r"<fifths>(-?\d+)</fifths>", text))
    modes = set(re.findall(r"<mode>(\w+)</mode>", text))
    meters = set(re.findall(r"<beats>(\d+)</beats>\s*<beat-type>(\d+)</beat-type>", text))
    if len(fifths) != 1 or modes not in ({"major"}, {"minor"}) or meters not in ({("4", "4")}, {("3", "4")}):
        return None
    mode = modes.pop()
    tonic = (7 * int(fifths.pop()) + (9 if mode == "minor" else 0)) % 12
    title = path.stem.upper().replace("BWV", "BWV ")
    return Source(f"bach/{path.stem}", title, "Johann Sebastian Bach", "chorale", tonic, mode, 1.0, path)


def list_sources() -> list[Source]:
    """List all usable tunes in a fixed pseudo-random order."""
    corpus = package_folder("music21") / "corpus"
    found: dict[str, Source | None] = {}
    for book in BOOKS:
        for path in sorted((corpus / book).glob("*.abc")):
            for number, text in abc_blocks(path):
                name = f"{book}/{path.stem}/{number}"
                found[name] = read_abc(name, path, number, text)
    for path in sorted((corpus / "bach").glob("bwv*.mxl")):
        found[f"bach/{path.stem}"] = read_chorale(path)
    sources = [source for source in found.values() if source is not None]
    return sorted(sources, key=lambda source: hashlib.sha256(source.name.encode()).digest())
