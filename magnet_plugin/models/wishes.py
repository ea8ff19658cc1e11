"""Tempo and key in the words of the captions that models are trained on.

Importing this module loads nothing heavy, so that a command can check them first.
"""
import re
import typing as tp

_KEY = re.compile(r"([a-g])[ -]?(flat|sharp|b|#|♭|♯)?[ ]+([a-z]+)", re.IGNORECASE)
_ACCIDENTALS = {"b": "flat", "♭": "flat", "#": "sharp", "♯": "sharp"}
_MODES = ("major", "minor", "ionian", "dorian", "phrygian", "lydian", "mixolydian", "aeolian", "locrian")


def add_wishes(text: tp.Optional[str], bpm: tp.Optional[float] = None, key: tp.Optional[str] = None) -> tp.Optional[str]:
    """Add a tempo and a key to a description.

    >>> add_wishes("a reel", bpm=120, key="F# minor")
    'a reel in F sharp minor at 120 bpm'

    Args:
        text: the description.
        bpm: beats per minute, from 20 to 400.
        key: tonic and mode, such as `D major` or `Bb dorian`.
    Raises:
        ValueError: a value is invalid, or there is no description to add it to.
    """
    words = []
    if key is not None:
        match = _KEY.fullmatch(key.strip()) if isinstance(key, str) else None
        if match is None or match[3].lower() not in _MODES:
            raise ValueError(f"key={key!r} must be a tonic and a mode, such as 'D major' or 'F# minor'; modes are "
                             + ", ".join(_MODES))
        accidental = (match[2] or "").lower()
        tonic = " ".join(filter(None, (match[1].upper(), _ACCIDENTALS.get(accidental, accidental))))
        words.append(f"in {tonic} {match[3].lower()}")
    if bpm is not None:
        if isinstance(bpm, bool) or not isinstance(bpm, (int, float)) or not 20 <= bpm <= 400:
            raise ValueError(f"bpm={bpm!r} must be a number from 20 to 400")
        words.append(f"at {bpm:g} bpm")
    if words and text is None:
        raise ValueError("bpm and key are added to descriptions, but a sample has none; pass a text for each")
    return text if text is None else " ".join([text, *words])
