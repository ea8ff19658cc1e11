"""`magnet export`: a trained model as a release folder, and on the hub."""
import argparse
import typing as tp
from pathlib import Path

from .deferred_imports import defer_imports
from .inspect import size_of
from .output import check_folder


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet export`."""
    one = commands.add_parser("export", parents=[common], help="export a trained model as a release folder",
                              description="Write the weights of a trained model and of its codec to a folder that `magnet "
                                          "generate --model` and MAGNeT.get_pretrained load, in AudioCraft's format and as "
                                          "safetensors, with a model card (README.md) filled in from the run.")
    one.add_argument("source", metavar="SOURCE", help="name of a run (see `magnet runs`), //sig/SIGNATURE, a checkpoint, or "
                     "the folder of a run")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; created if needed")
    one.add_argument("--half", action="store_true", help="store the weights in float16, at half the size (default: float32)")
    one.add_argument("--license", metavar="ID", help="licence that the model card states, by its identifier on the hub, "
                     "such as cc-by-4.0; without it, the card has a placeholder for you to fill in")
    one.add_argument("--push", metavar="OWNER/NAME", help="also upload the folder to this repository on the Hugging Face "
                     "hub; needs a token that may write (hf auth login, or HF_TOKEN) and a licence")
    one.add_argument("--private", action="store_true", help="with --push: if the repository is new, nobody else sees it")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the folder, print its files, and upload it if asked to."""
    from ..app import hub
    from ..sweeps.runs import resolve_name
    if args.private and not args.push:
        raise ValueError("--private needs --push OWNER/NAME")
    if args.push:
        hub.check_push(args.push)
    check_folder("--out", args.out)
    source = resolve_name(args.source)
    defer_imports()
    from .. import register
    from ..app.release import export_release
    register()
    release = export_release(source, args.out, args.half, args.license)
    print(f"Exported {args.source} to {release.folder}{' in float16' if args.half else ''}:")
    for path in release.files:
        print(f"  {path.name:<34} {size_of(path.stat().st_size):>10}")
    print("The weights were read again from both formats and equal those of the source.")
    if not release.new_card:
        print("README.md existed and was kept. To have it written again, delete it first.")
    if args.push:
        print(f"Uploaded to {hub.push(release.folder, args.push, args.private)}")
    return 0
