"""Records of `magnet bench`: JSON files with the measurements, the command, and the machine and versions they come from."""
from __future__ import annotations

import datetime
import json
import re
import shlex
import sys
import typing as tp
from pathlib import Path

import torch

from ..metrics.machine import made_with

PACKAGES = ("magnet-plugin", "audiocraft", "torch", "xformers")


def new_record(kind: str) -> dict[str, tp.Any]:
    """Return a record without cases: kind, command line, machine, versions and date."""
    made = {**made_with(Path(__file__).parents[2], PACKAGES), "threads": torch.get_num_threads()}
    return {"kind": kind, "command": shlex.join(["magnet", *sys.argv[1:]]), "made_with": made,
            "date": datetime.date.today().isoformat(), "cases": []}


def measure_cases(kind: str, cases: tp.Iterable[tp.Any], measure: tp.Callable[[tp.Any], dict[str, tp.Any]], folder: Path,
                  device: torch.device) -> Path:
    """Measure each case and write `KIND-DEVICE.json`, which is complete after every case. Returns its path."""
    record = new_record(kind)
    name = record["made_with"]["measured_on"] if device.type == "cuda" else "cpu"
    path = folder / f"{kind}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    for case in cases:
        record["cases"].append(measure(case))
        write(record, path)
    return path


def write(record: dict[str, tp.Any], path: Path) -> None:
    """Write a record as JSON."""
    path.write_text(json.dumps(record, indent=1) + "\n")


def read_all(folder: Path) -> tp.Iterator[tuple[Path, dict[str, tp.Any]]]:
    """Yield the records in `folder` with their paths, by file name; other JSON files are ignored."""
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and {"kind", "cases", "made_with"} <= record.keys():
            yield path, record
