"""`magnet data folk` and `magnet data scan`: thin over `folk.make_folk` and `scan.scan`."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path


def run_folk(args: argparse.Namespace) -> int:
    """Makes the folk set and prints the settings that use it."""
    from ..data.folk.dataset import make_folk
    try:
        folders = make_folk(args.out, args.clips, args.seed, args.sample_rate, args.duration, args.jobs)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for name, folder in folders.items():
        print(f"datasource.{name}={folder}")
    return 0


def run_scan(args: argparse.Namespace) -> int:
    """Makes manifests of a user's audio and prints what was found."""
    from ..data.scan import SPLITS, scan
    try:
        splits = dict(map(read_share, args.split)) if args.split else SPLITS
        report = scan(args.source, args.out, splits, args.seed, args.min_duration, group_by_folder=args.group_by_folder)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(report.summary())
    return 0


def read_share(text: str) -> tuple[str, float]:
    """`train=.9` as a name and a number.

    Raises:
        ValueError: it is not of this form.
    """
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise ValueError(f"--split {text}: write it as NAME=SHARE, as in --split train=.9 valid=.1") from None


def add_folk_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `magnet data folk`."""
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--clips", type=int, default=2000, help="number of clips, all splits together (2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample-rate", type=int, default=16000, help="in Hz: 16000 for the bundled codec, or 32000")
    parser.add_argument("--duration", type=float, default=5.0, help="of a clip, in seconds (5)")
    parser.add_argument("--jobs", type=int, default=None, help="processes (one for each core)")
    parser.set_defaults(run=run_folk)


def add_scan_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `magnet data scan`."""
    parser.add_argument("source", type=Path, metavar="FOLDER_OR_CSV",
                        help="folder of audio, or a CSV with the columns path, description and, if wanted, split")
    parser.add_argument("--out", type=Path, required=True, help="folder to make; the audio itself is left alone")
    parser.add_argument("--split", nargs="+", metavar="NAME=SHARE", help="as train=.9 valid=.05 evaluate=.05")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--min-duration", type=float, default=None, help="leave out shorter files, in seconds")
    parser.add_argument("--group-by-folder", action="store_true", help="keep files of one folder in one split")
    parser.set_defaults(run=run_scan)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `data` with its commands to the `magnet` command; each sets `run`, which takes the arguments."""
    parser = subparsers.add_parser("data", help="make data sets and manifests")
    commands = parser.add_subparsers(dest="data_command", required=True)
    add_folk_arguments(commands.add_parser("folk", help="make the folk set: real tunes, true captions"))
    add_scan_arguments(commands.add_parser("scan", help="make manifests of your own audio"))
