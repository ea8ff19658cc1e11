"""`magnet bench scale`: a plan on the command line, or the tables of docs/scale.md."""
from __future__ import annotations

import argparse
import typing as tp
from pathlib import Path

from ..bench.scale.hardware import GPUS, PRECISIONS, Assumptions


def add_arguments(one: argparse.ArgumentParser) -> None:
    """The arguments of `bench scale`."""
    group = one.add_argument_group("of scale: steps/s, memory and network of a training, computed from its config")
    group.add_argument("--solver", default="magnet/magnet_32khz", metavar="NAME", help="(magnet/magnet_32khz)")
    group.add_argument("--scale", metavar="NAME", help="model_scale, as small or medium; the config's if left out")
    group.add_argument("--gpus", type=int, nargs="+", default=[8, 32, 64], metavar="N", help="how many (8 32 64)")
    group.add_argument("--gpu", default="H100", metavar="KIND", help=f"one of {', '.join(GPUS)} (H100)")
    group.add_argument("--batch", type=int, metavar="N", help="dataset.batch_size, over all GPUs; the config's if left out")
    group.add_argument("--duration", type=float, metavar="S", help="seconds of a clip; the config's if left out")
    group.add_argument("--precision", metavar="P", help=f"one of {', '.join(PRECISIONS)}; the config's if left out")
    group.add_argument("--mode", choices=["ddp", "fsdp"], help="both if left out")
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override of dora run; repeatable")
    group.add_argument("--efficiency", type=float, default=Assumptions.efficiency, metavar="SHARE",
                       help=f"of the peak, that matrix products reach ({Assumptions.efficiency})")
    group.add_argument("--doc", type=Path, metavar="FILE", help="write the tables of docs/scale.md into this file instead")


def run(args: argparse.Namespace) -> int:
    """Print the plans, or write the tables."""
    assumed = Assumptions(efficiency=args.efficiency)
    from ..bench.scale import page
    if args.doc:
        print(page.write(args.doc, args.out, assumed))
        return 0
    print("Computed, not measured; what is assumed: docs/scale.md.\n")
    print(report(args, assumed))
    return 0


def report(args: argparse.Namespace, assumed: Assumptions) -> str:
    """The plans as Markdown.

    Raises:
        ValueError: a setting that cannot work, named with its remedy.
    """
    from ..bench.scale import page
    from ..bench.scale.estimate import Plan, estimate
    from ..bench.scale.hardware import get_gpu
    from ..bench.scale.recipes import read, settings
    get_gpu(args.gpu, args.precision or PRECISIONS[1])
    for count in args.gpus:                     # told before configs are read, which takes a while
        Plan(count, args.gpu, args.batch or count)
    more = [*args.set, *([f"dataset.segment_duration={args.duration}"] if args.duration else [])]
    lines: list[list[str]] = []
    parts: list[list[str]] = []
    notes: list[str] = []
    names: tp.Sequence[str] = ()
    for mode in [args.mode.upper()] if args.mode else page.MODES:
        try:
            recipe = read(settings(args.solver, args.scale, args.precision, mode == "FSDP", more), assumed.text_tokens)
        except ValueError as error:
            if args.mode or not lines:              # nothing to show, or just what was asked for
                raise
            notes.append(f"\nNo rows for {mode}: {error}.\n")
            continue
        for count in args.gpus:
            found = estimate(recipe, Plan(count, args.gpu, args.batch or recipe.batch), assumed)
            lines.append([*page.row(found, mode), str(found.most * count) if found.most else "none"])
            names = list(found.memory)
            parts.append([str(count), mode, *(f"{value / page.GIB:.2f}" for value in found.memory.values()),
                          f"{found.peak / page.GIB:.2f}"])
    heads = [*page.HEADS, "dataset.batch_size at most"]
    return (page.table(heads, lines, 2) + "\nGiB of a GPU by what they are for:\n\n"
            + page.table(("GPUs", "mode", *names, "peak"), parts, 2) + "".join(notes))

