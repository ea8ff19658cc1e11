"""Generate with every system, and let the judges listen. Each system has a record of its own, which is not made twice."""
from __future__ import annotations

import dataclasses
import functools
import json
import re
import subprocess
import sys
import typing as tp
from pathlib import Path

import torch

from ...data.token_cache import weights_key
from ...environment import dora_run
from ...metrics.evaluation import Evaluation
from .. import quality, records
from ..measure import Log, Run, measure_in_turn
from ..settings import Setting
from .study import PAPER, SPEED

FOLDER, BOUNDS, TIMES = "claims", "bounds", "times"
METRICS = ("instruments", "kernel", "melody")
TRAINING_CLIPS = 2000                   # of the classifier
BATCHES, ROUNDS = (1, 16), 3
CAPTION = "a lively jig in D major played on the violin"


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What all systems have in common: number of held-out captions, and seeds."""
    clips: int
    seeds: tuple[int, ...]

    def plain(self) -> dict[str, tp.Any]:
        """Return numbers and lists for JSON."""
        return {"clips": self.clips, "seeds": list(self.seeds)}


def path_of(folder: Path, name: str) -> Path:
    """Return the record of a system, such as `claims/guidance-10-1.json`."""
    return folder / FOLDER / (re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") + ".json")


def measure(systems: tp.Sequence[Setting], folder: Path, data: tp.Optional[Path], conditions: Conditions, log: Log) -> None:
    """Judge the systems that have no record yet with these weights, settings and conditions.

    Args:
        systems: in the order in which they are measured.
        folder: of the results; the records are in its folder `claims`.
        data: folder of the folk data set, by default that of `solver=magnet`.
        conditions: the captions and seeds.
        log: receives progress messages.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    evaluation: tp.Optional[Evaluation] = None
    for setting in systems:
        model = load(setting, log)
        about = {"name": setting.name, "model": setting.training or setting.model, "params": setting.params,
                 "weights": weights_key(model.lm), **conditions.plain()}
        about = json.loads(json.dumps(about))
        if case_of(folder, setting.name).get("about") == about:
            log(f"{setting.name}: measured before")
            continue
        if evaluation is None:
            evaluation = Evaluation(model.compression_model, quality.folk_splits(data), conditions.clips, METRICS,
                                    TRAINING_CLIPS)
            write({"about": conditions.plain(), "scores": evaluation.bounds()}, path_of(folder, BOUNDS))
        log(setting.name)
        judgement = evaluation.evaluate(model, conditions.seeds, log)
        write({"about": about, "judgement": judgement.plain()}, path_of(folder, setting.name))


def write(case: dict[str, tp.Any], path: Path) -> None:
    """Write a record with one case."""
    records.write({**records.new_record("claims"), "cases": [case]}, path)


def case_of(folder: Path, name: str) -> dict[str, tp.Any]:
    """Read the case of a record; empty if there is none."""
    path = path_of(folder, name)
    return json.loads(path.read_text())["cases"][0] if path.exists() else {}


def load(setting: Setting, log: Log) -> tp.Any:
    """Load the model of a system, which is trained first if it has one of its own."""
    if not setting.training:
        return quality.load(setting)
    from ...train import main
    run = main.get_xp(list(setting.training))
    log(f"{setting.name}: training {run.sig}")
    subprocess.run(dora_run(setting.training), check=True, stdout=sys.stderr)
    return quality.load(dataclasses.replace(setting, model=f"//sig/{run.sig}"))


def measure_times(folder: Path, log: Log) -> None:
    """Measure the time of one clip and of a batch with the systems of `SPEED`, in turn."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    models = {setting.name: quality.load(setting) for setting in SPEED}
    case: dict[str, tp.Any] = {"about": {"seconds": models[PAPER.name].duration}, "batches": {}}
    for batch in BATCHES:
        log(f"times of {batch} clips")
        runs: dict[str, Run] = {name: functools.partial(model.generate, [CAPTION] * batch, seed=0)
                                for name, model in models.items()}
        case["batches"][str(batch)] = measure_in_turn(runs, ROUNDS, torch.device("cpu"), log)
    write(case, path_of(folder, TIMES))
