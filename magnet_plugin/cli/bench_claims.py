"""`magnet bench claims`: put the paper's claims to the test on the bundled models."""
from __future__ import annotations

import argparse

from .bench_options import add_data
from .numbers import integer_from
from .output import say

HELP = "put the paper's claims to the test on the bundled models"
MORE = (" Runs on the CPU and on the folk data set, and needs basic-pitch. Each system has a record in the folder claims; "
        "one that was measured before with the same weights, captions and seeds is not measured again. Writes claims.md.")


def add_arguments(one: argparse.ArgumentParser) -> None:
    """Add the options."""
    one.add_argument("--clips", type=integer_from(3), default=24, metavar="N",
                     help="number of held-out captions, at least 3 (default: 24)")
    one.add_argument("--seeds", type=integer_from(1), default=3, metavar="N",
                     help="number of seeds; each generates all captions once (default: 3)")
    add_data(one)
    one.add_argument("--only", action="append", metavar="TEXT",
                     help="measure only systems whose names contain TEXT, or `times` for the times; may be repeated "
                          "(default: everything)")


def run(args: argparse.Namespace) -> int:
    """Measure what has no record yet, and write the page.

    Raises:
        ValueError: there is no such system.
    """
    from ..bench.claims.study import SYSTEMS
    only = args.only or []
    systems = [one for name, one in SYSTEMS.items() if not only or any(text in name for text in only)]
    timed = not only or "times" in only
    if not systems and not timed:
        raise ValueError(f"--only {' '.join(only)}: no system has such a name; give `times` or a part of one of: "
                         + "; ".join(SYSTEMS))
    from .. import register
    from ..bench.claims import measure, page
    register()

    if systems:
        measure.measure(systems, args.out, args.data, measure.Conditions(args.clips, tuple(range(args.seeds))), say)
    if timed:
        measure.measure_times(args.out, say)
    print(page.write(args.out))
    return 0
