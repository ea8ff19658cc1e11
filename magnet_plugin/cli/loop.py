"""`magnet loop`: a recording that repeats without a seam."""
from __future__ import annotations

import argparse
import typing as tp

from . import editing

if tp.TYPE_CHECKING:
    from ..models.keep_mask import Keep

SEAM = 2.0          # seconds


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet loop`."""
    one = editing.add_parser(commands, common, "loop", "make a recording repeat without a seam",
                             "Make a recording repeat without a seam: what surrounds its end and its start is generated "
                             "anew. The result is as long as the recording.")
    one.add_argument("--seam", type=float, metavar="SECONDS", help="length to generate, half of it at the end "
                     f"and half at the start; at most half of the recording (default: {SEAM:g})")
    editing.add_options(one)
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the recording a loop."""
    return editing.run(args, plan, {"seam": "seam"})


def plan(args: argparse.Namespace, seconds: float) -> editing.Plan:
    """Check the seam for a recording of some seconds."""
    seam = SEAM if args.seam is None else args.seam
    if not 0 < seam <= seconds / 2:
        raise ValueError(f"--seam {seam:g} must be above 0 and at most half of the recording, which lasts "
                         f"{seconds:.2f} s")

    def mask(seconds: float, frame_rate: float) -> tuple[Keep, float]:
        from ..models import keep
        return keep.outside([(0.0, seam / 2), (seconds - seam / 2, seconds)]), seconds

    return editing.Plan("loop", {"seam": seam}, mask)
