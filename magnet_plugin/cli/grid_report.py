"""The `magnet grid-report` command: table and plots of a grid's jobs. It submits nothing."""
from __future__ import annotations

import argparse
import shlex
import sys
import typing as tp
from pathlib import Path

from .output import check_folder


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add the `grid-report` command and its arguments."""
    parser = commands.add_parser(
        "grid-report", parents=[common], help="write a table and plots of a grid's jobs",
        description="Write NAME.md, NAME.csv and plots of a grid from the results that its jobs have stored so far. Needs "
                    "no SLURM and submits nothing.")
    parser.add_argument("name", metavar="NAME", help="name of the grid, as for `dora grid`, such as magnet.ablate_span")
    parser.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR",
                        help="folder to write to; created if needed (default: reports)")
    parser.add_argument("--csv", action="store_true",
                        help="also print the CSV table to stdout; the names of the files then go to stderr")
    parser.add_argument("--no-plots", action="store_true", help="write only the tables")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report and print the names of its files."""
    from ..sweeps.catalog import check_name
    check_name(args.name)
    check_folder("--out", args.out)
    from ..sweeps.jobs import find_jobs
    from ..sweeps.report import write_report
    from ..sweeps.table import Table
    from ..train import main
    found = find_jobs(main, args.name)
    report = write_report(Table.of(args.name, found.jobs), found.notes, args.out, shlex.join(["magnet", *sys.argv[1:]]),
                          plots=not args.no_plots)
    for file in report.files:
        print(file, file=sys.stderr if args.csv else sys.stdout)
    for note in (report.warning, *found.notes):
        if note:
            print(note, file=sys.stderr)
    if args.csv:
        print(report.csv, end="")
    return 0
