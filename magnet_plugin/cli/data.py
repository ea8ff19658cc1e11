"""The commands `magnet data scan` and `magnet data folk`, and the parser of `magnet data`."""
from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..data.scan import SCAN_SHARES
from .data_check import DESCRIPTION as CHECK_DESCRIPTION
from .data_check import add_check_arguments
from .numbers import integer_from, number_above

SHARES = " ".join(f"{name}={share:g}" for name, share in SCAN_SHARES.items())
SCAN_DESCRIPTION = """\
Write AudioCraft manifests for your own audio (.wav, .flac, .ogg, .mp3) and report unreadable files and missing captions.
The audio itself is not changed: the output folder links to it. The caption of a file comes from the CSV column
`description`; if that is empty, from the field `description` of a .json file next to the audio; otherwise from a .txt
file next to it. Missing captions are made from the names of folders and files: `Irish_Reels/03 - The-Silver_Spear.wav`
becomes "Irish Reels, The Silver Spear". The command prints the setting that `dora run` needs to train on the data."""
FOLK_DESCRIPTION = """\
Render the built-in data set: folk tunes and chorales from music21's corpus, played on General MIDI instruments, with
captions that name instrument, key, tempo and kind of tune. The same arguments give the same files. The command prints the
settings that `dora run` needs to train on the data."""


def run_folk(args: argparse.Namespace) -> int:
    """Make the folk set and print the settings that use it."""
    from ..data.folk.dataset import make_folk
    folders = make_folk(args.out, args.clips, args.seed, args.sample_rate, args.duration, args.jobs,
                        soundfonts=args.soundfont)
    for name, folder in folders.items():
        print(f"datasource.{name}={folder}")
    return 0


def run_scan(args: argparse.Namespace) -> int:
    """Make manifests of the user's audio and print the report."""
    from ..data import scan
    splits = dict(args.split) if args.split else SCAN_SHARES
    report = scan.scan(args.source, args.out, splits, args.seed, args.min_duration, args.group_by_folder,
                       progress=sys.stderr.isatty(), name_captions=args.captions == "names")
    print(report.summary())
    print(f"Next: magnet data check {shlex.quote(str(args.out))}")
    return 0


def read_share(text: str) -> tuple[str, float]:
    """Parse `train=.9` into a name and a number.

    Raises:
        argparse.ArgumentTypeError: the text has another form.
    """
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SHARE; example: --split train=.9 valid=.1") from None


def add_folk_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `magnet data folk`."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="output folder; if it already holds the data set with the same arguments, nothing is rendered")
    parser.add_argument("--clips", type=int, default=2000, metavar="N",
                        help="number of clips over all splits, at least 3 (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed, 0 or higher (default: 0)")
    parser.add_argument("--sample-rate", type=int, default=16000, metavar="HZ",
                        help="sample rate in Hz, 8000 to 48000 (default: 16000, the rate of the bundled codec)")
    parser.add_argument("--duration", type=float, default=5.0, metavar="SECONDS",
                        help="length of each clip in seconds, 0.5 to 600 (default: 5)")
    parser.add_argument("--jobs", type=integer_from(1), metavar="N",
                        help="number of processes, at least 1 (default: number of available cores)")
    parser.add_argument("--soundfont", action="append", default=[], metavar="NAME",
                        help="SoundFont that plays the notes: timgm6mb, fluidr3, musescore, or the path of an .sf2 or .sf3 "
                             "file. Repeatable: each clip then draws one of them (default: timgm6mb, which comes with "
                             "pretty_midi)")
    parser.set_defaults(run=run_folk)


def add_scan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `magnet data scan`."""
    parser.add_argument("source", type=Path, metavar="FOLDER_OR_CSV",
                        help="folder of audio files (subfolders included), or a CSV file with a column `path` and optional "
                             "columns `description`, `split`, `bpm`, `key`, …")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="output folder for manifests, links and metadata; an earlier scan in it is replaced")
    parser.add_argument("--split", nargs="+", type=read_share, metavar="NAME=SHARE",
                        help="splits and their shares, which are divided by their sum. The split `generate` consists of the "
                             f"first clips of the last split (default: {SHARES})")
    parser.add_argument("--seed", type=int, default=0, metavar="N",
                        help="random seed of the assignment to splits; files that are added later do not move the others "
                             "(default: 0)")
    parser.add_argument("--min-duration", type=number_above(0), metavar="SECONDS",
                        help="skip files that are shorter (default: use all files)")
    parser.add_argument("--group-by-folder", action="store_true",
                        help="put all files of a folder, such as an album, into the same split")
    parser.add_argument("--captions", choices=("names", "given"), default="names",
                        help="names: make missing captions from the names of folders and files; given: leave them empty "
                             "(default: names)")
    parser.set_defaults(run=run_scan)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add `magnet data` and its commands.

    Args:
        commands: subparsers of `magnet`.
        common: options that all commands take.
    """
    parser = commands.add_parser("data", parents=[common], help="prepare your own audio, or render the built-in data set",
                                 description="Prepare data for training.")
    kinds = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    add_scan_arguments(kinds.add_parser("scan", parents=[common], help="write manifests of your own audio",
                                        description=SCAN_DESCRIPTION))
    add_check_arguments(kinds.add_parser("check", parents=[common], help="print facts about a data set and what to set",
                                         description=CHECK_DESCRIPTION))
    add_folk_arguments(kinds.add_parser("folk", parents=[common], help="render the built-in data set of folk tunes",
                                        description=FOLK_DESCRIPTION))
