"""What Dora keeps of training runs, as figures: steps, seconds, losses. Reads plain values, loads no model."""
from __future__ import annotations

import json
import typing as tp
from pathlib import Path

Epoch = dict[str, dict[str, float]]       # stage -> metric -> value, as in Dora's history.json


class Run(tp.NamedTuple):
    """One training run."""

    signature: str
    arguments: list[str]                  # overrides it was started with
    history: list[Epoch]
    updates_per_epoch: int
    batch_size: int
    device: str
    threads: int
    continue_from: tp.Optional[str]       # folder name of the run it started from, if any


def read_json(path: Path) -> tp.Any:
    """The content of a JSON file.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): is its folder that of a Dora run with an epoch behind it?"
                         ) from error


def check_lineage(runs: tp.Sequence[Run]) -> None:
    """Hold that the runs are one chain: each but the first is continued by another, and none that was continued lacks.

    Raises:
        ValueError: a run is missing, or does not belong; it says which.
    """
    here = {run.signature for run in runs}
    continued = {run.continue_from for run in runs}
    for run in runs:
        if run.continue_from and run.continue_from not in here:
            raise ValueError(f"{run.signature} continued {run.continue_from}, whose steps would be missing: add "
                             f"--after {run.continue_from}")
    for run in runs[1:]:
        if run.signature not in continued:
            raise ValueError(f"none of the other runs continued {run.signature}: leave --after {run.signature} out")
    if len(here) != len(runs):
        raise ValueError("a run is named twice, its steps would count double")


def training_figures(runs: tp.Sequence[Run]) -> dict[str, tp.Any]:
    """Steps and seconds of a chain of runs and of each, the oldest first.

    Returns:
        `steps`, `training_seconds`, `validation_seconds` in all, and `runs` with the same of each run, its `signature`,
        `arguments`, `epochs`, `batch_size`, `device`, `threads`.
    Raises:
        ValueError: the runs are no chain (see `check_lineage`).
    """
    check_lineage(runs)
    each: list[dict[str, tp.Any]] = []
    for run in _oldest_first(runs):
        each.append({"signature": run.signature, "arguments": run.arguments, "epochs": len(run.history),
                     "steps": len(run.history) * run.updates_per_epoch, "batch_size": run.batch_size,
                     "device": run.device, "threads": run.threads,
                     "training_seconds": _seconds(run, "train"), "validation_seconds": _seconds(run, "valid")})
    names = ("steps", "training_seconds", "validation_seconds")
    sums = {name: sum(figures[name] for figures in each) for name in names}
    return {**sums, "runs": each}


def _oldest_first(runs: tp.Sequence[Run]) -> list[Run]:
    by_name = {run.signature: run for run in runs}
    order, run = [], tp.cast(tp.Optional[Run], runs[0])
    while run is not None and run not in order:
        order.append(run)
        run = by_name.get(run.continue_from or "")
    return order[::-1]


def _seconds(run: Run, stage: str) -> float:
    return float(sum(epoch.get(stage, {}).get("duration", 0.0) for epoch in run.history))


def loss_figures(history: tp.Sequence[Epoch], metric: str = "ce") -> dict[str, tp.Any]:
    """Validation losses of the best and of the last epoch.

    Args:
        metric: the best epoch has the least of it, as AudioCraft chooses the weights to keep.
    Returns:
        `epochs`, `best_epoch` (from 1), `best` and `last`: `metric` and its kin, such as ce_q1 … ce_q4.
    Raises:
        ValueError: no epoch was validated.
    """
    valid = {number: epoch["valid"] for number, epoch in enumerate(history, 1) if metric in epoch.get("valid", {})}
    if not valid:
        raise ValueError(f"no epoch of this run has a validation {metric}: was it trained with a valid split?")
    best = min(valid, key=lambda number: valid[number][metric])

    def kin(epoch: dict[str, float]) -> dict[str, float]:
        return {name: epoch[name] for name in sorted(epoch) if name == metric or name.startswith(metric + "_")}
    return {"epochs": len(history), "best_epoch": best, "best": kin(valid[best]), "last": kin(valid[max(valid)])}
