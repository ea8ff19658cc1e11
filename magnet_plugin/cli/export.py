"""`magnet export`: a trained model as a release folder."""
import argparse
import typing as tp
from pathlib import Path

from .deferred_imports import defer_imports


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet export`."""
    one = commands.add_parser("export", parents=[common], help="export a trained model as a release folder",
                              description="Write the weights of a trained model and of its codec to a folder that `magnet "
                                          "generate --model` and MAGNeT.get_pretrained load.")
    one.add_argument("source", metavar="SOURCE", help="//sig/SIGNATURE, a checkpoint or the folder of a Dora run")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; created if needed")
    one.add_argument("--half", action="store_true", help="store the weights in float16, at half the size (default: float32)")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the folder and print its files."""
    defer_imports()
    from .. import register
    from ..models import checkpoints
    register()
    folder = checkpoints.export(args.source, args.out, half=args.half)
    print(f"Exported {args.source} to {folder}{' in float16' if args.half else ''}:")
    for path in sorted(path for path in folder.iterdir() if path.name in (checkpoints.LM_FILE, checkpoints.CODEC_FILE)):
        print(f"  {path.name:<28} {path.stat().st_size / 1e6:8.2f} MB")
    print("The folder was reloaded; its weights equal those of the source.")
    return 0
