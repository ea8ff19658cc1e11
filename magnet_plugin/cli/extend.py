"""`magnet extend`: music before and after a recording."""
from __future__ import annotations

import argparse
import math
import typing as tp

from . import editing

if tp.TYPE_CHECKING:
    from ..models.keep_mask import Keep


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet extend`."""
    one = editing.add_parser(commands, common, "extend", "generate what comes before and after a recording",
                             "Generate what comes before and after a recording. Its outermost frame or two are generated "
                             "too, for the cross-fade.")
    for option, place in (("--before", "before"), ("--after", "after")):
        one.add_argument(option, type=float, metavar="SECONDS",
                         help=f"length to add {place} the recording, rounded up to whole frames (default: 0)")
    editing.add_options(one)
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Extend the recording."""
    return editing.run(args, plan, {"before": "before", "after": "after"})


def plan(args: argparse.Namespace, seconds: float) -> editing.Plan:
    """Check what is added."""
    before, after = args.before or 0.0, args.after or 0.0
    if not (0 <= before < math.inf and 0 <= after < math.inf and before + after > 0):
        raise ValueError(f"--before {before:g} and --after {after:g} must be at least 0 seconds, and one of them above 0")

    def mask(seconds: float, frame_rate: float) -> tuple[Keep, float]:
        from ..models import keep
        from ..models.generation import frames
        lead, count, trail = (frames(length, frame_rate) for length in (before, seconds, after))
        # The last frame that is full is generated too if anything follows.
        last = math.floor(round(seconds * frame_rate, 6)) - 1 if trail else count
        return (keep.spans([((lead + (lead > 0)) / frame_rate, (lead + last) / frame_rate)]),
                (lead + count + trail) / frame_rate)

    return editing.Plan("extend", {"before": before, "after": after}, mask)
