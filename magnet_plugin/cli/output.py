"""Results of a command: audio files with their settings, their names on stdout, and messages on stderr."""
from __future__ import annotations

import argparse
import json
import os
import sys
import typing as tp
from pathlib import Path

from ..app import clips

if tp.TYPE_CHECKING:
    import numpy as np


def add_output(one: argparse.ArgumentParser) -> None:
    """Add the options of the output."""
    names = [suffix.removeprefix(".") for suffix in clips.FORMATS]
    one.add_argument("--out", type=Path, default=Path("outputs"), metavar="PATH",
                     help=f"folder for the files, created if needed; or, for a single clip, its name, which ends with "
                          f".{', .'.join(names[:-1])} or .{names[-1]} (default: %(default)s)")
    one.add_argument("--format", choices=names, help="audio format (default: that of the name in --out, otherwise wav)")
    one.add_argument("--spectrogram", action="store_true", help="write a spectrogram of each clip, as a PNG file")
    one.add_argument("--json", action="store_true", help="print one line of JSON per clip to stdout instead of its name: "
                     "file, text, seed and settings")


def check(args: argparse.Namespace, count: int | None, source: Path | None = None) -> None:
    """Check the options of the output.

    Args:
        args: the arguments.
        count: number of clips; None if it is not known.
        source: an audio file that must not be overwritten.
    Raises:
        ValueError: several clips would have one name, `source` would be overwritten, two formats are given, or the folder
            cannot be written to.
    """
    if not names_file(args.out):
        check_folder("--out", args.out)
        return
    check_folder("--out", args.out.parent)
    if args.format and f".{args.format}" != args.out.suffix.lower():
        raise ValueError(f"--out {args.out} and --format {args.format} disagree; give one of them")
    if count != 1:
        raise ValueError(f"--out {args.out} names one file, but there are {count or 'several'} clips; give a folder")
    if source is not None and args.out.exists() and args.out.samefile(source):
        raise ValueError(f"--out {args.out} is the recording itself; give another name")


def save(args: argparse.Namespace, name: str, wav: np.ndarray, sample_rate: int, metadata: dict[str, tp.Any],
         **form: tp.Any) -> Path:
    """Write a clip and its settings, print its path or its line of JSON to stdout, and return the path.

    Args:
        args: the arguments.
        name: what a new name is made from, if `--out` is a folder.
        wav: [channels, samples].
        sample_rate: in Hz.
        metadata: see `clips.save_clip`.
        **form: `scale` and `subtype`, see `clips.save_clip`.
    """
    reserved = not names_file(args.out)
    if reserved:
        path = clips.reserve(args.out, name, f".{args.format or 'wav'}")
    else:
        path = args.out
        path.parent.mkdir(parents=True, exist_ok=True)
    settings = path.with_suffix(".json")
    try:
        gain = clips.save_clip(path, wav, sample_rate, metadata, **form)
    except BaseException:
        if reserved and not settings.stat().st_size:        # Interrupted, for example: the clip is not complete.
            path.unlink(missing_ok=True)
            settings.unlink()
        raise
    files = {"file": str(path)}
    if args.spectrogram:
        from ..metrics.spectrogram import draw_spectrogram
        files["spectrogram"] = str(path.with_suffix(".png"))
        draw_spectrogram(path.with_suffix(".png"), wav, sample_rate)
    print(json.dumps({**files, **metadata, "gain": gain}, default=clips.from_numpy) if args.json else path, flush=True)
    return path


def check_folder(option: str, folder: Path) -> None:
    """Raise ValueError if files cannot be written to a folder, which may not exist yet; `option` names the argument."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"{option} {folder}: {existing} is {'not writable' if existing.is_dir() else 'a file'}; give "
                         "another folder")


def writable_folder(text: str) -> Path:
    """Parse a folder that files can be written to, for `type=` of an argument."""
    try:
        check_folder("folder", Path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def names_file(out: Path) -> bool:
    """Whether `--out` names an audio file and not a folder."""
    return out.suffix.lower() in clips.FORMATS and not out.is_dir()


def say(text: str) -> None:
    """Print a message for people to stderr."""
    print(text, file=sys.stderr, flush=True)


def is_watched() -> bool:
    """Whether stderr is a terminal, where a progress bar is of use."""
    return sys.stderr.isatty()
