"""`magnet demo`: fine-tune, export, generate, and write an HTML page with the clips."""
import argparse
import typing as tp
from pathlib import Path

from .model_options import MODEL


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet demo`."""
    one = commands.add_parser("demo", parents=[common], help="fine-tune a model, generate clips and write an HTML page",
                              description="Fine-tune a model briefly on the built-in data set, export it, generate clips "
                                          "with different settings, and write an HTML page to play them.")
    one.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR",
                     help="output folder; created if needed (default: %(default)s)")
    one.add_argument("--model", default=MODEL, metavar="NAME", help="model to fine-tune (default: %(default)s)")
    one.add_argument("--override", action="append", default=[], metavar="KEY=VALUE",
                     help="config override of the training run, such as optim.epochs=2; may be repeated")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    from ..app.demo import run_demo
    run_demo(args.out, args.model, args.override)
    return 0
