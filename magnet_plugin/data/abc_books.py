"""The tunes of music21's corpus as text: which there are, and what their headers say of them.

Nothing is imported from music21 here, only its files are read: listing all tunes takes a fraction of a second.
"""
from dataclasses import dataclass
import hashlib
import importlib.util
from pathlib import Path
import re
import typing as tp

from .captions import KINDS

BOOKS = ("ryansMammoth", "oneills1850")
ABC_TONICS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ABC_MODES = {"": "major", "maj": "major", "ion": "major", "m": "minor", "min": "minor", "aeo": "minor",
             "dor": "dorian", "mix": "mixolydian"}
KIND_NAMES = {"double jig": "jig", "slipjig": "slip jig", "highland fling": "fling"}
BAR_QUARTERS = {"2/4": 2.0, "3/4": 3.0, "4/4": 4.0, "C": 4.0, "C|": 4.0, "2/2": 4.0,
                "6/8": 3.0, "9/8": 4.5, "12/8": 6.0}


@dataclass(frozen=True)
class Source:
    """One tune's text and the facts in its header.

    `tonic` is a pitch class (0 is C); `beat` is the length of one felt beat and `bar` of one bar, in quarter notes.
    """
    name: str
    title: str
    kind: str
    tonic: int
    mode: str
    beat: float
    bar: float
    text: str


def package_folder(package: str) -> Path:
    """Folder of an installed package, without importing it.

    Raises:
        ValueError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"The folk data set needs the package {package}: run `pip install {package}`.")
    return Path(next(iter(spec.submodule_search_locations)))


def read_key(field: str) -> tp.Optional[tp.Tuple[int, str]]:
    """Tonic (pitch class) and mode of an ABC `K:` field, or None for what the captions have no word for."""
    match = re.fullmatch(r"([A-G])([#b]?)\s*([A-Za-z]*)\s*", field)
    if match is None:
        return None
    letter, sign, word = match.groups()
    mode = ABC_MODES.get(word if len(word) < 2 else word.lower()[:3])
    if mode is None:
        return None
    return (ABC_TONICS[letter] + {"#": 1, "b": -1, "": 0}[sign]) % 12, mode


def felt_beat(kind: str, meter: str) -> float:
    """Length of the beat that a dancer would count, in quarter notes."""
    if meter.endswith("/8"):
        return 1.5
    if meter in ("2/4", "3/4") or kind in ("strathspey", "fling", "air", "chorale"):
        return 1.0
    return 2.0


def read_source(name: str, text: str) -> tp.Optional[Source]:
    """Reads one tune's header; None where it does not say plainly what the captions need.

    Tunes that change key or metre on the way are left out, for one name would not be true of all of them.
    """
    fields: tp.Dict[str, tp.List[str]] = {}
    for line in text.splitlines():
        match = re.match(r"([A-Z]):(.*)", line)
        if match:
            fields.setdefault(match.group(1), []).append(match.group(2).split("%")[0].strip())
    kinds = {k.lower() for k in fields.get("R", [])}
    keys, meters = set(fields.get("K", [])), set(fields.get("M", []))
    if len(kinds) != 1 or len(keys) != 1 or len(meters) != 1 or re.search(r"\[[KM]:", text):
        return None
    kind, meter, key = kinds.pop(), meters.pop(), read_key(keys.pop())
    kind = KIND_NAMES.get(kind, kind)
    if kind == "jig" and meter == "9/8":
        kind = "slip jig"
    if kind not in KINDS or meter not in BAR_QUARTERS or key is None:
        return None
    title = " ".join(fields.get("T", [name])[0].split())
    return Source(name, title, kind, key[0], key[1], felt_beat(kind, meter), BAR_QUARTERS[meter], text)


def list_sources() -> tp.List[Source]:
    """All usable tunes, in an order that is shuffled but always the same."""
    corpus = package_folder("music21") / "corpus"
    sources = []
    for book in BOOKS:
        for path in sorted((corpus / book).glob("*.abc")):
            text = path.read_text(encoding="utf-8", errors="replace")
            for block in re.split(r"(?m)^(?=X:)", text):
                number = re.match(r"X:\s*(\d+)", block)
                if number:
                    source = read_source(f"{book}/{path.stem}/{number.group(1)}", block)
                    if source is not None:
                        sources.append(source)
    unique = {source.name: source for source in sources}
    return sorted(unique.values(), key=lambda s: hashlib.sha256(s.name.encode()).digest())
