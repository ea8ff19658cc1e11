"""`magnet bench`: measure the plugin against its baselines, and write the table of results."""
from __future__ import annotations

import argparse
import sys
import typing as tp
from pathlib import Path

from . import bench_scale

RESULTS = Path("docs/results")


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `bench` and its commands."""
    bench = commands.add_parser(
        "bench", parents=[common], help="measure speed and quality, or estimate a training on many GPUs",
        description="Measure the plugin and its baselines in turn, and write the results as JSON and bench.md.")
    whats = bench.add_subparsers(dest="what", required=True, metavar="WHAT")

    def add(name: str, text: str, run: tp.Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        one = whats.add_parser(name, parents=[common], help=text, description=text[0].upper() + text[1:] + ".")
        if name != "scale":
            one.add_argument("--out", type=Path, default=RESULTS, metavar="DIR",
                             help="folder of the JSON files and bench.md (default: docs/results)")
        one.set_defaults(run=run)
        return one

    for name, text in (("decode", "measure decoding: whole clips and single steps, compared with AudioCraft"),
                       ("train", "measure training updates, compared with AudioCraft"),
                       ("startup", "measure `magnet generate` and imports from the start of the command to its end")):
        one = add(name, text, measure_speed)
        one.add_argument("--device", metavar="D", help="cpu or cuda (default: cuda if available)")
        if name != "startup":
            one.add_argument("--only", action="append", metavar="SIZE",
                             help="measure only this model size: tiny, dim512, dim1024, small or medium; repeatable")
        one.add_argument("--smoke", action="store_true", help="measure one small case, to check that everything runs")
    one = add("quality", "measure the quality of the bundled models with different settings", measure_quality)
    one.add_argument("--table", default="speed", help="settings to compare: speed or rescoring (default: speed)")
    one.add_argument("--clips", type=int, default=48, help="number of held-out captions (default: 48)")
    one.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    one.add_argument("--data", type=Path, metavar="DIR",
                     help="folder of the folk data set (default: that of solver=magnet, created if missing)")
    one.add_argument("--only", action="append", metavar="NAME",
                     help="measure only rows whose names contain this; repeatable")
    add("table", "write bench.md and its pictures again from the JSON files", write_table)
    bench_scale.add_arguments(add("scale", "estimate speed, memory and network traffic of a training on many GPUs",
                                  bench_scale.run))


def measure_speed(args: argparse.Namespace) -> int:
    """Run the cases of `decode`, `train` or `startup`, and write the table.

    Raises:
        ValueError: if no case is left, or the device is not available.
    """
    from .. import register
    from ..bench import decode, records, startup, train
    device = records.get_device(args.device)
    module: tp.Any = {"decode": decode, "train": train, "startup": startup}[args.what]
    cases = module.cases(device, args.smoke)
    if args.what != "startup" and args.only:
        cases = [case for case in cases if case.size in args.only]
        if not cases:
            raise ValueError(f"--only {' '.join(args.only)}: no case of {args.what} on {device.type} has this size")
    register()
    args.out.mkdir(parents=True, exist_ok=True)
    records.measure_cases(args.what, cases, lambda case: module.measure(case, device, log), args.out, device)
    return write_table(args)


def measure_quality(args: argparse.Namespace) -> int:
    """Run the rows of a table of quality, and write the table."""
    from .. import register
    from ..bench import quality
    register()
    args.out.mkdir(parents=True, exist_ok=True)
    quality.measure(args.table, args.data, args.clips, range(args.seeds), log, args.out, args.only or ())
    return write_table(args)


def write_table(args: argparse.Namespace) -> int:
    """Write bench.md from the JSON files, and print its path."""
    from ..bench import table
    args.out.mkdir(parents=True, exist_ok=True)
    print(table.write(args.out))
    return 0


def log(text: str) -> None:
    """Print a progress message to stderr."""
    print(text, file=sys.stderr, flush=True)
