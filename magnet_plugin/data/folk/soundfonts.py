"""The SoundFonts that play the folk set: where they are, under which licence, and one synthesiser for each."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .sources import package_folder

DRAIN = 0.1     # seconds in which the last voices of the previous clip end


@dataclass(frozen=True)
class SoundFont:
    """A General MIDI SoundFont with a known licence.

    Attributes:
        file: path; that of TimGM6mb is relative to pretty_midi's folder.
        licence: under which its samples are published.
        remedy: how to install it.
    """

    file: str
    licence: str
    remedy: str

    @property
    def path(self) -> Path:
        """Return the path of the file.

        Raises:
            ValueError: it is not installed.
        """
        path = Path(self.file)
        return path if path.is_absolute() else package_folder("pretty_midi") / path


DEFAULT = "timgm6mb"
SOUNDFONTS: dict[str, SoundFont] = {
    DEFAULT: SoundFont("TimGM6mb.sf2", "GPL-2.0", "pip install --force-reinstall pretty_midi"),
    "fluidr3": SoundFont("/usr/share/sounds/sf2/FluidR3_GM.sf2", "MIT", "apt-get install fluid-soundfont-gm"),
    "musescore": SoundFont("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3", "MIT",
                           "apt-get install musescore-general-soundfont-small"),
}


def find(name: str) -> Path:
    """Return the file of a SoundFont: one of `SOUNDFONTS`, or a path.

    Raises:
        ValueError: there is no such file.
    """
    known = SOUNDFONTS.get(name)
    path = known.path if known else Path(name).expanduser()
    if not path.is_file():
        names = ", ".join(SOUNDFONTS)
        remedy = f"run `{known.remedy}`" if known else f"give the path of an .sf2 or .sf3 file, or one of {names}"
        raise ValueError(f"there is no SoundFont {name} at {path}; {remedy}")
    return path


def licence(name: str) -> str:
    """Return the licence of a SoundFont's samples, `unknown` for a file that is not one of `SOUNDFONTS`."""
    return SOUNDFONTS[name].licence if name in SOUNDFONTS else "unknown"


@cache
def _load(name: str, rate: int) -> tuple[Any, int]:
    import tinysoundfont  # type: ignore[import-untyped]
    synth = tinysoundfont.Synth(samplerate=rate)
    return synth, synth.sfload(find(name).read_bytes())


def synthesiser(name: str, program: int, rate: int) -> Any:
    """Return a silent tinysoundfont synthesiser that plays `program` on channel 0.

    Every process loads a SoundFont once, because a compressed one takes seconds to decode. Nothing of an earlier clip is
    left in the synthesiser: it has no reverberation, and its voices are stopped and drained.

    Args:
        name: see `find`.
        program: General MIDI program, counted from 0.
        rate: sample rate in Hz.
    """
    synth, number = _load(name, rate)
    synth.sounds_off()
    synth.generate(round(DRAIN * rate))
    synth.program_select(0, number, 0, program)
    return synth
