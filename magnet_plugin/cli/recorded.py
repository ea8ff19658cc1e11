"""`--settings FILE`: texts, seed and settings of an earlier clip, for a command that makes it again."""
from __future__ import annotations

import argparse
import json
import typing as tp
from pathlib import Path

from ..app import clip_settings, clips
from .output import say

#: What a clip may hold besides its settings, and the type of each.
TYPES: dict[str, tp.Any] = {"text": str, "negative": str, "seed": int, "source": str, "arguments": dict,
                            "continued_from": dict, "bpm": (int, float), "key": str, "timed": list}


def add_settings(one: argparse.ArgumentParser) -> None:
    """Add the option."""
    one.add_argument("--settings", type=Path, metavar="FILE", help="audio or JSON file of an earlier clip, which is made "
                     "again: its texts, seed, model and settings are used where the command line gives no others")


def read(args: argparse.Namespace) -> dict[str, tp.Any]:
    """Read the file into `args.recorded` and its settings into `args.base`, and return what else it holds.

    Model, seed and negative text are filled into `args` where they are not given. Without the option, everything is empty.

    Raises:
        ValueError: the file does not hold settings, or is a clip of another command.
    """
    args.recorded, args.base = None, {}
    if args.settings is None:
        return {}
    recorded = clip_settings.read_metadata(args.settings)
    for name, kind in TYPES.items():
        if recorded.get(name) is not None and not isinstance(recorded[name], kind):
            raise ValueError(f"--settings {args.settings}: {name}={recorded[name]!r} is not what magnet writes; give "
                             "another file, or remove it there")
    made = recorded.get("command", "generate")
    if made != args.command:
        raise ValueError(f"--settings {args.settings}: this clip was made by magnet {made}; use the option with that "
                         "command")
    args.recorded, args.base = recorded, clip_settings.arguments_of(recorded["settings"])
    fill(args, model=recorded["settings"].get("model"), seed=recorded.get("seed"), negative=recorded.get("negative"))
    return recorded


def fill(args: argparse.Namespace, **values: tp.Any) -> None:
    """Set arguments that are not given on the command line."""
    for name, value in values.items():
        if value is not None and getattr(args, name) is None:
            setattr(args, name, value)


def compare(args: argparse.Namespace, made: tp.Mapping[str, tp.Any]) -> None:
    """Print a warning if a clip was made in the same way as that of the file but has other tokens."""
    before, now = args.recorded, json.loads(json.dumps(made, default=clips.from_numpy))
    if before is None or "tokens" not in before or before["tokens"] == now["tokens"]:
        return
    if _way(before) == _way(now):
        say(f"magnet: warning: the tokens differ from those of {args.settings}, which was made on "
            f"{before['settings'].get('device')} by version {before.get('plugin')}; only the same device, libraries and "
            "files give the same tokens")


def _way(metadata: tp.Mapping[str, tp.Any]) -> dict[str, tp.Any]:
    """Return what decides the tokens of a clip, but for the machine."""
    return {**{name: metadata.get(name) for name in TYPES}, **metadata["settings"], "device": None}
