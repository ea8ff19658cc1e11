"""`magnet bench editing`: measure editing and long clips, or draw the pictures of docs/editing.md."""
from __future__ import annotations

import argparse
from pathlib import Path

from .bench_options import add_data
from .numbers import integer_from
from .output import say


def add_arguments(one: argparse.ArgumentParser) -> None:
    """Add the options."""
    one.add_argument("--clips", type=integer_from(3), default=24, metavar="N",
                     help="number of held-out clips, at least 3; variations and long clips use a third of them "
                          "(default: 24)")
    one.add_argument("--seeds", type=integer_from(0), nargs="+", default=[0, 1, 2], metavar="SEED",
                     help="random seeds; each edits all clips once (default: 0 1 2)")
    add_data(one)
    one.add_argument("--only", action="append", metavar="TEXT",
                     help="measure only units whose names contain TEXT (second, vary, loop, long); may be repeated "
                          "(default: all units)")
    one.add_argument("--pictures", type=Path, metavar="DIR",
                     help="draw the pictures of docs/editing.md into DIR instead of measuring")


def run(args: argparse.Namespace) -> int:
    """Measure and write the table, or draw the pictures."""
    from .. import register
    from ..bench import table
    from ..bench.editing import pictures, record
    from ..bench.quality import folk_splits
    register()
    splits = folk_splits(args.data)
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
        for path in pictures.draw_all(splits[1], args.pictures):
            print(path)
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    record.measure(splits, args.clips, args.seeds, say, args.out,
                   args.only or ())
    print(table.write(args.out))
    return 0
