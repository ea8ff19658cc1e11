"""`magnet vary`: a variation of a recording."""
from __future__ import annotations

import argparse
import typing as tp

from . import editing

if tp.TYPE_CHECKING:
    from ..models.keep_mask import Keep

#: The names of `models.keep.PRESETS`, which are only known after importing torch.
PRESETS = ("small", "medium", "large", "timbre", "beat")


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet vary`."""
    one = editing.add_parser(commands, common, "vary", "generate a variation of a recording",
                             "Generate a variation of a recording: some of its tokens are kept, and the others generated "
                             "again.")
    how = one.add_mutually_exclusive_group()
    how.add_argument("--strength", type=float, metavar="X", help="from 0, which keeps everything, to 1, which keeps nothing")
    how.add_argument("--preset", choices=PRESETS, help="how much is varied: small, medium or large; timbre changes the "
                     "instrument, and beat keeps what surrounds the beats")
    editing.add_options(one, preset="--decoding-preset")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Vary the recording."""
    return editing.run(args, plan, {"strength": "strength", "preset": "preset"})


def plan(args: argparse.Namespace, seconds: float) -> editing.Plan:
    """Check the strength."""
    if args.strength is None and args.preset is None:
        raise ValueError("give --strength X or --preset NAME")
    if args.preset is not None and args.preset not in PRESETS:          # From a file.
        raise ValueError(f"--preset {args.preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    if args.strength is not None and not 0 <= args.strength <= 1:
        raise ValueError(f"--strength {args.strength:g} must be from 0 to 1")

    def mask(seconds: float, frame_rate: float) -> tuple[Keep, float]:
        from ..models import keep
        return keep.PRESETS[args.preset] if args.strength is None else keep.strength(args.strength), seconds

    given = {"strength": args.strength, "preset": args.preset}
    return editing.Plan("vary", {name: value for name, value in given.items() if value is not None}, mask)
