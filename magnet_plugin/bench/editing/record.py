"""Measure the units and keep a record that can be resumed."""
from __future__ import annotations

import json
import time
import typing as tp
from pathlib import Path

from .. import records
from ..measure import Log
from ..settings import MAGNET
from .clips import Bench
from .rows import UNITS

FILE = "editing.json"


def measure(splits: tuple[Path, Path], clips: int, seeds: tp.Sequence[int], log: Log, folder: Path,
            only: tp.Sequence[str] = (), model: tp.Any = None) -> Path:
    """Measure editing with the bundled model and write `editing.json`, which is complete after every unit.

    Units of an earlier record with the same clips and seeds are kept and not measured again.

    Args:
        splits: manifest folders of the training and of the held-out clips, of the folk set.
        clips: number of held-out clips.
        seeds: each edits all clips once.
        log: receives progress messages.
        folder: for the record.
        only: measure only units whose names contain one of these; all if empty.
        model: another `MAGNeT` than the bundled one.
    Returns:
        The path of the record.
    Raises:
        ValueError: there is no such unit, or the clips cannot be used.
    """
    chosen = [name for name in UNITS if not only or any(part in name for part in only)]
    if not chosen:
        raise ValueError(f"--only {' '.join(only)}: editing has no such unit; give part of one of: {'; '.join(UNITS)}")
    if model is None:
        from ... import MAGNeT
        model = MAGNeT.get_pretrained(MAGNET, device="cpu")
    record, path = records.new_record("editing"), folder / FILE
    found: dict[str, tp.Any] = {"clips": clips, "seeds": list(seeds)}
    before = json.loads(path.read_text())["cases"][0] if path.exists() else {}
    same = bool(before) and all(before[name] == found[name] for name in found)
    done, seconds = (dict(before["units"]), dict(before["seconds"])) if same else ({}, {})
    missing = [name for name in chosen if name not in done]
    bench = Bench.load(model, splits, clips, seeds, log) if missing else None
    for name in missing:
        log(f"  {name}")
        started = time.perf_counter()
        done[name] = {row: {metric: [round(value, 5) for value in values] for metric, values in entry.items()}
                      for row, entry in UNITS[name](tp.cast(Bench, bench)).items()}
        seconds[name] = round(time.perf_counter() - started, 1)
        ordered = {unit: done[unit] for unit in UNITS if unit in done}
        records.write({**record, "cases": [{**found, "units": ordered, "seconds": seconds}]}, path)
    return path
