"""`magnet inspect`: what the files of a model hold."""
from __future__ import annotations

import argparse
import json
import typing as tp


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet inspect`."""
    one = commands.add_parser("inspect", parents=[common], help="print what a release folder or checkpoint holds",
                              description="Print what a release folder, a checkpoint or a run holds, without running code "
                                          "from it: kind and size of each file, weights, settings, codec, conditioners and "
                                          "licence. The exit status is 1 if a file is not safe to load, otherwise 0.")
    one.add_argument("path", metavar="PATH", help="release folder, checkpoint, folder or name of a run, //sig/SIGNATURE or "
                                                  "//bundled/NAME")
    one.add_argument("--json", action="store_true", help="print the facts as JSON")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    from ..sweeps.runs import resolve_name
    name = resolve_name(args.path)
    from ..models.inspection import inspect, locate
    facts = inspect(locate(name))
    print(json.dumps(facts, indent=1, ensure_ascii=False) if args.json else "\n".join(lines_of(facts)))
    return 0 if facts["safe"] else 1


def lines_of(facts: tp.Mapping[str, tp.Any]) -> list[str]:
    """Format the facts for people."""
    safe = "yes: weights and settings only" if facts["safe"] else "NO: other programs may run code when they load it"
    lines = [facts["path"], f"  {'safe to load':<18} {safe}", f"  {'licence':<18} {facts['licence'] or 'not stated'}"]
    lines += [f"  {name:<18} {value_of(value)}" for name, value in (facts["model"] or {}).items()]
    for file in facts["files"]:
        lines.append(f"{file['file']}: {file['kind']}, {size_of(file['bytes'])}")
        if "problem" in file:
            lines.append(f"  {file['problem']}")
        if "weights" in file:
            weights = file["weights"]
            dtypes = ", ".join(f"{count} {dtype}" for dtype, count in weights["dtypes"].items())
            lines.append(f"  {weights['parameters']:,} values in {weights['tensors']} tensors ({dtypes}), "
                         f"{size_of(weights['bytes'])}")
        if "epochs" in file:
            lines.append(f"  {file['epochs']} epochs")
        if "version" in file:
            lines.append(f"  written by version {file['version']}")
    return lines


def value_of(value: tp.Any) -> str:
    """Format a setting."""
    return ", ".join(f"{name} ({kind})" for name, kind in value.items()) if isinstance(value, dict) else str(value)


def size_of(count: int) -> str:
    """Format a number of bytes.

    >>> size_of(900), size_of(3458293)
    ('0.9 kB', '3.5 MB')
    """
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
