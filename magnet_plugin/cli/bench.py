"""The `magnet bench` command: measures, writes a JSON after every case, and the table at the end; `scale` computes."""
from __future__ import annotations

import argparse
import datetime
import json
import re
import shlex
import sys
import typing as tp
from pathlib import Path

from . import bench_scale as scale

PACKAGES = ("magnet-plugin", "audiocraft", "torch", "xformers")


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """`bench` and its arguments."""
    one = commands.add_parser("bench", parents=[common], help="measure decoding or training beside its peers",
                              description="Measures the plugin and its peers in turn, and writes JSON and bench.md.")
    one.add_argument("what", choices=["decode", "train", "quality", "scale", "table"],
                     help="speed of decoding or training; what settings cost in quality; what training on many GPUs takes, "
                     "computed; write bench.md again")
    one.add_argument("--out", type=Path, default=Path("bench"), metavar="DIR", help="for JSON and bench.md (bench)")
    one.add_argument("--device", metavar="D", help="cpu or cuda; cuda where there is one, if left out")
    one.add_argument("--only", action="append", metavar="SIZE", help="a size (tiny, dim512, dim1024, small, medium), or "
                     "a part of the names of quality's rows; may be repeated")
    one.add_argument("--table", default="speed", help="of quality: which settings (speed)")
    one.add_argument("--clips", type=int, default=48, help="of quality: held-out captions (48)")
    one.add_argument("--seeds", type=int, default=3, help="of quality: how many seeds (3)")
    one.add_argument("--data", type=Path, metavar="DIR", help="of quality: the folk set, if not solver=magnet's own")
    one.add_argument("--smoke", action="store_true", help="one small case, to see that all runs")
    scale.add_arguments(one)
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and write, or compute."""
    if args.what == "scale":
        return scale.run(args)
    from ..bench import table
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "quality":
        measure_quality(args)
    elif args.what != "table":
        measure_speed(args)
    print(table.write(args.out))
    return 0


def measure_speed(args: argparse.Namespace) -> Path:
    """Run the cases; the record is complete after each of them.

    Raises:
        ValueError: no case is left, or the device is not there.
    """
    import torch

    from .. import register
    from ..bench import decode, train
    from ..environment import default_device
    room: tp.Any = {"decode": decode, "train": train}[args.what]
    device = torch.device(args.device or default_device())
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {args.device}: torch sees no CUDA device; `magnet doctor` tells more")
    chosen = [case for case in room.cases(device, args.smoke) if not args.only or case.size in args.only]
    if not chosen:
        raise ValueError(f"--only {' '.join(args.only)}: no case of {args.what} on {device.type} has this size")
    register()
    record = new_record(args.what)
    where = record["made_with"]["measured_on"] if device.type == "cuda" else "cpu"
    path = args.out / f"{args.what}-{re.sub(r'[^a-z0-9]+', '-', where.lower()).strip('-')}.json"
    for case in chosen:
        record["cases"].append(room.measure(case, device, say))
        path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def measure_quality(args: argparse.Namespace) -> Path:
    """Run the rows of a table; the record is complete after each of them, and rows that it has already are not run again.

    Raises:
        ValueError: there is no such table, or no data.
    """
    from .. import register
    from ..bench import quality
    if args.table not in quality.TABLES:
        raise ValueError(f"--table {args.table}: choose one of {', '.join(quality.TABLES)}")
    register()
    record, path = new_record("quality"), args.out / f"quality-{args.table}.json"

    def keep(found: dict[str, tp.Any]) -> None:
        path.write_text(json.dumps({**record, "cases": [found]}, indent=1) + "\n")

    before = json.loads(path.read_text())["cases"][0] if path.exists() else None
    quality.measure(args.table, splits(args.data), args.clips, range(args.seeds), say, keep, args.only or (), before)
    return path


def splits(folder: tp.Optional[Path]) -> tuple[Path, Path]:
    """Manifest folders of training and held-out clips: below `folder`, or those of solver=magnet, made if need be."""
    if folder is None:
        from ..train import main, prepare_data
        cfg = main.get_xp(["solver=magnet"]).cfg
        prepare_data(cfg)
        folder = Path(cfg.datasource.folk.out)
    return folder / "egs" / "train", folder / "egs" / "evaluate"


def new_record(kind: str) -> dict[str, tp.Any]:
    """What every record says of itself."""
    import torch

    from ..metrics.machine import made_with
    made = {**made_with(Path(__file__).parents[2], PACKAGES), "threads": torch.get_num_threads()}
    return {"kind": kind, "command": shlex.join(["magnet", *sys.argv[1:]]), "made_with": made,
            "date": datetime.date.today().isoformat(), "cases": []}


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
