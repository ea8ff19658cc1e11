"""Toy grids, and the Dora folders that their jobs would leave behind."""
import json
import math
import sys
import types
import typing as tp
from collections import OrderedDict
from pathlib import Path

import pytest
from dora import XP, Explorer
from dora.conf import DoraConfig
from dora.main import DecoratedMain
from omegaconf import OmegaConf

from magnet_plugin import environment
from magnet_plugin.sweeps import jobs, table

CONFIG = {"optim": {"epochs": 3, "updates_per_epoch": 4}, "transformer_lm": {"n_q": 4, "subcodes_context": 5},
          "masking": {"span_len": 3},
          "dataset": {"segment_duration": 10, "batch_size": 8, "generate": {"num_samples": 10, "segment_duration": None}},
          "generate": {"lm": {"gen_duration": None}}, "execute_only": None,
          "datasource": dict.fromkeys(("train", "valid", "evaluate", "generate"), "egs")}


class ToyMain(DecoratedMain):
    """Dora's main function as far as grids need it, with a small config that is composed instantly."""

    def __init__(self, folder: Path) -> None:
        super().__init__(main, DoraConfig(dir=folder, exclude=["execute_only"]))

    def get_xp(self, argv: tp.Sequence[str]) -> XP:
        cfg = OmegaConf.merge(CONFIG, OmegaConf.from_dotlist(list(argv)))
        return XP(self.dora, cfg, list(argv), delta=[tuple(part.split("=", 1)) for part in argv])

    def value_to_argv(self, arg: tp.Any) -> list[str]:
        return [f"{key}={value}" for key, value in arg.items()] if isinstance(arg, dict) else list(arg)

    def get_name_parts(self, xp: XP) -> OrderedDict:
        return OrderedDict(xp.delta or [])


def main() -> None:
    raise AssertionError("no job runs in these tests")


def epoch(ce: float, **stages: dict) -> dict:
    """An epoch of history.json as MagnetSolver writes it."""
    losses = {"ce": ce, "ppl": math.exp(ce), **{f"ce_q{q}": ce + q / 10 for q in (1, 2, 3, 4)}}
    return {"train": {"ce": ce + 0.5, "lr": 0.1, "duration": 8.0}, "valid": {**losses, "duration": 2.0}, **stages}


END = {"evaluate": {"ce": 2.0, "fad": 4.5, "text_consistency": 0.25, "instrument_accuracy": 0.5},
       "generate": {"rtf": 0.4, "duration": 5.0}}
SPANS = [{"masking.span_len": span, "transformer_lm.subcodes_context": context}
         for context in (5, -1) for span in (1, 2, 10)]
EVALUATIONS = [{"continue_from": "//sig/0a1b2c3d", "generate.lm.decoding_steps": steps, "execute_only": "evaluate"}
               for steps in ("[4,2]", "[8,2]")]


class Dora:
    """A Dora folder with a toy grid."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.main = ToyMain(folder)
        self.monkeypatch = monkeypatch

    def grid(self, wanted: tp.Sequence[dict], kind: type = Explorer, name: str = "toy") -> Explorer:
        """Define a grid of one job array."""
        return self.arrays(wanted, kind=kind, name=name)

    def arrays(self, *arrays: tp.Sequence[dict], kind: type = Explorer, name: str = "toy") -> Explorer:
        """Define a grid of job arrays; one of a single job is submitted as a job."""
        def explore(launcher: tp.Any) -> None:
            for wanted in arrays:
                with launcher.job_array():
                    for job in wanted:
                        launcher.bind(["solver=magnet/debug"])(job)
        module = types.ModuleType(name)
        module.explorer = kind(explore)                     # type: ignore[attr-defined]
        self.monkeypatch.setitem(sys.modules, f"{environment.grids_package()}.{name}", module)
        return module.explorer                              # type: ignore[attr-defined]

    def argv(self, job: dict) -> list[str]:
        return ["solver=magnet/debug", *self.main.value_to_argv(job)]

    def folder(self, job: dict) -> Path:
        return self.main.get_xp(self.argv(job)).folder

    def ran(self, job: dict, *history: dict) -> Path:
        """Write what a job leaves behind: config, log and history."""
        folder = self.folder(job)
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".argv.json").write_text(json.dumps(self.argv(job)))
        OmegaConf.save(self.main.get_xp(self.argv(job)).cfg, folder / ".hydra" / "config.yaml")
        (folder / "solver.log.0").write_text("started\n")
        if history:
            (folder / "history.json").write_text(json.dumps(history))
        return folder

    def table(self) -> table.Table:
        return table.Table.of("toy", jobs.find_jobs(self.main, "toy").jobs)


def mixed(dora: Dora) -> Dora:
    """Six jobs: one finished, one incomplete, one broken, one with NaN losses, one without a full epoch, one missing."""
    dora.grid(SPANS)
    dora.ran(SPANS[0], epoch(5.0), epoch(3.0), epoch(4.0, **END))
    dora.ran(SPANS[1], epoch(2.5))
    dora.ran(SPANS[2], epoch(1.0)).joinpath("history.json").write_text('[{"train": {"ce": 1.0')
    dora.ran(SPANS[3], epoch(math.nan), epoch(math.nan), epoch(math.nan))
    dora.ran(SPANS[4])
    return dora


def cells(text: str) -> list[list[str]]:
    """Header and rows of a Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not set(line) <= set("|-: ")]


def column(text: str, head: str) -> list[str]:
    """Cells of a column, without its header."""
    heads, *body = cells(text)
    return [row[heads.index(head)] for row in body]
