"""Summaries of Dora training runs from their JSON files: steps, time and losses. Loads no model."""
from __future__ import annotations

import json
import typing as tp
from pathlib import Path

Epoch = dict[str, dict[str, float]]       # stage -> metric -> value, as in Dora's history.json


class TrainingRun(tp.NamedTuple):
    """One training run."""

    signature: str
    arguments: list[str]                  # overrides of `dora run`
    history: list[Epoch]
    updates_per_epoch: int
    batch_size: int
    device: str
    threads: int
    continue_from: tp.Optional[str]       # signature of the run it was initialised from, if any


def read_json(path: Path) -> tp.Any:
    """Read a JSON file.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); give a Dora run that has finished at least one epoch") from error


def check_lineage(runs: tp.Sequence[TrainingRun]) -> None:
    """Check that the runs are one complete chain, in which each run continues another one.

    Args:
        runs: the exported run, followed by its predecessors in any order.
    Raises:
        ValueError: a run is missing, unrelated or given twice.
    """
    given = {run.signature for run in runs}
    continued = {run.continue_from for run in runs}
    for run in runs:
        if run.continue_from and run.continue_from not in given:
            raise ValueError(f"{run.signature} continues {run.continue_from}, whose steps are not counted yet; add "
                             f"--after {run.continue_from}")
    for run in runs[1:]:
        if run.signature not in continued:
            raise ValueError(f"no other run continues {run.signature}; remove --after {run.signature}")
    if len(given) != len(runs):
        raise ValueError("a run is given twice; its steps would be counted twice")


def training_summary(runs: tp.Sequence[TrainingRun]) -> dict[str, tp.Any]:
    """Summarise a chain of runs, as a whole and run by run, the oldest first.

    Returns:
        `steps`, `training_seconds` and `validation_seconds` in total, and `runs`, a list with the same values of each run
        and its `signature`, `arguments`, `epochs`, `batch_size`, `device`, `threads`.
    Raises:
        ValueError: the runs are not a complete chain (see `check_lineage`).
    """
    check_lineage(runs)
    summaries = [{"signature": run.signature, "arguments": run.arguments, "epochs": len(run.history),
                  "steps": len(run.history) * run.updates_per_epoch, "batch_size": run.batch_size,
                  "device": run.device, "threads": run.threads,
                  "training_seconds": _seconds(run, "train"), "validation_seconds": _seconds(run, "valid")}
                 for run in _oldest_first(runs)]
    names = ("steps", "training_seconds", "validation_seconds")
    totals = {name: sum(tp.cast(float, summary[name]) for summary in summaries) for name in names}
    return {**totals, "runs": summaries}


def _oldest_first(runs: tp.Sequence[TrainingRun]) -> list[TrainingRun]:
    by_signature = {run.signature: run for run in runs}
    order, run = [], tp.cast(tp.Optional[TrainingRun], runs[0])
    while run is not None and run not in order:
        order.append(run)
        run = by_signature.get(run.continue_from or "")
    return order[::-1]


def _seconds(run: TrainingRun, stage: str) -> float:
    return float(sum(epoch.get(stage, {}).get("duration", 0.0) for epoch in run.history))


def loss_summary(history: tp.Sequence[Epoch], metric: str = "ce") -> dict[str, tp.Any]:
    """Return the validation losses of the best and of the last epoch.

    Args:
        history: the epochs of a run.
        metric: the best epoch is the one that minimises it; AudioCraft keeps the weights of that epoch.
    Returns:
        `epochs`, `best_epoch` (counted from 1), and `best` and `last`, each with `metric` and its variants per codebook
        (`ce_q1` …).
    Raises:
        ValueError: no epoch has a validation loss.
    """
    valid = {number: epoch["valid"] for number, epoch in enumerate(history, 1) if metric in epoch.get("valid", {})}
    if not valid:
        raise ValueError(f"no epoch of this run has the validation metric {metric}; train with a valid split")
    best = min(valid, key=lambda number: valid[number][metric])

    def losses(epoch: dict[str, float]) -> dict[str, float]:
        return {name: epoch[name] for name in sorted(epoch) if name == metric or name.startswith(metric + "_")}
    return {"epochs": len(history), "best_epoch": best, "best": losses(valid[best]), "last": losses(valid[max(valid)])}
