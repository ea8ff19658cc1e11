"""The `magnet` command: parses the arguments, runs the subcommand and prints errors.

Parsing imports neither torch nor AudioCraft; each subcommand imports what it needs when it runs.
"""
from __future__ import annotations

import argparse
import logging
import sys
import warnings

from . import (
    app,
    bench,
    completion,
    data,
    demo,
    doctor,
    evaluate,
    export,
    extend,
    generate,
    grid_report,
    inpaint,
    inspect,
    loop,
    runs,
    vary,
)
from .errors import describe, out_of_memory_during
from .numbers import Parser

#: Errors that the user can fix are printed in one line. Any other exception is a bug and keeps its traceback.
EXPECTED = (ValueError, OSError, ModuleNotFoundError)


def parser() -> argparse.ArgumentParser:
    """Build the parser of all subcommands."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks and all warnings")
    top = Parser("magnet", parents=[common],
                 description="MAGNeT for AudioCraft: text to music by masked decoding.",
                 epilog="To train a model: dora -P magnet_plugin run solver=magnet")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (generate, app, inpaint, extend, vary, loop, data, runs, evaluate, export, inspect,
                   doctor, bench, grid_report, demo, completion):
        module.add_parser(commands, common)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 on success, 1 if `doctor` found a problem, 2 after an error that the user can fix (one line on stderr).
    """
    args = parser().parse_args(argv)
    debug = getattr(args, "debug", False)
    if not debug:       # Libraries' warnings to developers.
        warnings.simplefilter("ignore")
        logging.getLogger("audiocraft.environment").setLevel(logging.ERROR)
    try:
        with out_of_memory_during(f"magnet {args.command}", "free its memory, or use shorter clips or smaller batches"):
            return args.run(args)
    except EXPECTED as error:
        if debug:
            raise
        print(f"magnet: error: {describe(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        if debug:
            raise
        print(f"magnet: interrupted{'; ' if str(interrupt) else ''}{interrupt}", file=sys.stderr)
        return 130
