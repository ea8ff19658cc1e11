"""`magnet inpaint`: spans of a recording, generated anew."""
from __future__ import annotations

import argparse
import typing as tp

from . import editing

if tp.TYPE_CHECKING:
    from ..models.keep_mask import Keep


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet inpaint`."""
    one = editing.add_parser(commands, common, "inpaint", "generate spans of a recording anew",
                             "Generate spans of a recording anew, all in one pass.")
    one.add_argument("--span", nargs=2, type=float, action="append", metavar=("START", "END"),
                     help="span to generate, in seconds; may be repeated. Spans are widened to whole frames of the codec")
    editing.add_options(one)
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Inpaint the recording."""
    return editing.run(args, plan, {"spans": "span"})


def plan(args: argparse.Namespace, seconds: float) -> editing.Plan:
    """Check the spans for a recording of some seconds."""
    if not args.span:
        raise ValueError("give --span START END, in seconds; it may be repeated")
    for start, end in args.span:
        if not 0 <= start < end <= seconds:
            raise ValueError(f"--span {start:g} {end:g} must lie within the recording, which lasts {seconds:.2f} s, and end "
                             "after its start")

    def mask(seconds: float, frame_rate: float) -> tuple[Keep, float]:
        from ..models import keep
        return keep.outside(args.span), seconds

    return editing.Plan("inpaint", {"spans": args.span}, mask)
