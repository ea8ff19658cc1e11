"""`magnet demo`: fine-tune, export, generate, and write an HTML page with the clips."""
import argparse
import typing as tp
from pathlib import Path

from .generate import MODEL


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet demo`."""
    one = commands.add_parser("demo", parents=[common], help="fine-tune, export, generate clips and write an HTML page")
    one.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="output folder. Default: %(default)s")
    one.add_argument("--model", default=MODEL, help="model to fine-tune. Default: %(default)s")
    one.add_argument("--override", action="append", default=[], metavar="KEY=VALUE",
                     help="config override of the training run; may be repeated")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    from ..app.demo import run_demo
    run_demo(args.out, args.model, args.override)
    return 0
