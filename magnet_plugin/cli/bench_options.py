"""Options that several `magnet bench` commands share."""
from __future__ import annotations

import argparse
from pathlib import Path


def add_data(one: argparse.ArgumentParser) -> None:
    """Add the option for the folk data set."""
    one.add_argument("--data", type=Path, metavar="DIR",
                     help="folder of the folk data set (default: the one of solver=magnet, which is rendered if missing)")
