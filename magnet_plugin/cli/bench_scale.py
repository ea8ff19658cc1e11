"""`magnet bench scale`: estimate a training on many GPUs, or update the tables of docs/scale.md."""
from __future__ import annotations

import argparse
from pathlib import Path

from ..bench.scale.hardware import GPUS, PRECISIONS, Assumptions
from .numbers import integer_from, number_above


def add_arguments(one: argparse.ArgumentParser) -> None:
    """Add the options."""
    one.add_argument("--solver", default="magnet/magnet_32khz", metavar="NAME",
                     help="config of the training (default: magnet/magnet_32khz)")
    one.add_argument("--scale", metavar="NAME",
                     help="config group model_scale: size of the model, such as small or medium (default: the config's)")
    one.add_argument("--gpus", type=int, nargs="+", default=[8, 32, 64], metavar="N",
                     help="numbers of GPUs: 1 to 8, or multiples of 8 (default: 8 32 64)")
    one.add_argument("--gpu", choices=list(GPUS), default="H100", help="kind of GPU (default: H100)")
    one.add_argument("--batch", type=integer_from(1), metavar="N",
                     help="clips per update over all GPUs (default: the config's)")
    one.add_argument("--duration", type=number_above(0), metavar="SECONDS",
                     help="length of a clip in seconds (default: the config's)")
    one.add_argument("--precision", choices=PRECISIONS, help="dtype of the training (default: the config's)")
    one.add_argument("--mode", choices=["ddp", "fsdp"],
                     help="keep a whole model on each GPU (ddp) or shard it (fsdp) (default: both)")
    one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                     help="config override, as for `dora run`; may be repeated")
    one.add_argument("--efficiency", type=float, default=Assumptions.efficiency, metavar="SHARE",
                     help=f"share of the peak FLOP/s that matrix products reach, from 0 to 1 "
                          f"(default: {Assumptions.efficiency})")
    one.add_argument("--doc", type=Path, metavar="FILE",
                     help="update the tables of docs/scale.md in this file instead of printing estimates")


def run(args: argparse.Namespace) -> int:
    """Print the estimates, or update the tables."""
    assumed = Assumptions(efficiency=args.efficiency)
    from ..bench.scale import report
    if args.doc:
        print(report.write(args.doc, assumed))
        return 0
    modes = [args.mode.upper()] if args.mode else list(report.MODES)
    overrides = [*args.set, *([f"dataset.segment_duration={args.duration}"] if args.duration else [])]
    text = report.plans(args.solver, args.scale, args.precision, modes, overrides, args.gpu, args.gpus, args.batch, assumed)
    print(f"Computed, not measured; docs/scale.md explains the columns and the assumptions.\n\n{text}")
    return 0
