"""Results of a command: audio files with their settings, their names on stdout, and messages on stderr."""
from __future__ import annotations

import argparse
import sys
import typing as tp
from pathlib import Path

if tp.TYPE_CHECKING:
    import numpy as np


def add_output(one: argparse.ArgumentParser) -> None:
    """Add the options of the output."""
    one.add_argument("--out", type=Path, default=Path("outputs"), metavar="PATH",
                     help="folder for WAV and JSON files, created if needed; or, for a single clip, its name, which ends "
                          "with .wav (default: %(default)s)")


def check(args: argparse.Namespace, count: int, source: Path | None = None) -> None:
    """Check the options of the output.

    Args:
        args: the arguments.
        count: number of clips.
        source: an audio file that must not be overwritten.
    Raises:
        ValueError: several clips would have one name, or `source` would be overwritten.
    """
    if not names_file(args.out):
        return
    if count > 1:
        raise ValueError(f"--out {args.out} names one file, but there are {count} clips; give a folder")
    if source is not None and args.out.exists() and args.out.samefile(source):
        raise ValueError(f"--out {args.out} is the recording itself; give another name")


def save(args: argparse.Namespace, name: str, wav: np.ndarray, sample_rate: int, metadata: tp.Mapping[str, tp.Any],
         **form: tp.Any) -> Path:
    """Write a clip and its settings, print its path to stdout, and return it.

    Args:
        args: the arguments.
        name: what a new name is made from, if `--out` is a folder.
        wav: [channels, samples].
        sample_rate: in Hz.
        metadata: see `clips.save_clip`.
        **form: `scale` and `subtype`, see `clips.save_clip`.
    """
    from ..app import clips
    if names_file(args.out):
        path = args.out
        path.parent.mkdir(parents=True, exist_ok=True)
    else:
        path = clips.reserve(args.out, name)
    clips.save_clip(path, wav, sample_rate, metadata, **form)
    print(path, flush=True)
    return path


def names_file(out: Path) -> bool:
    """Whether `--out` names an audio file and not a folder."""
    return out.suffix.lower() == ".wav" and not out.is_dir()


def say(text: str) -> None:
    """Print a message for people to stderr."""
    print(text, file=sys.stderr, flush=True)


def is_watched() -> bool:
    """Whether stderr is a terminal, where a progress bar is of use."""
    return sys.stderr.isatty()
