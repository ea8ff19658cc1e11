"""`magnet grid-report` and the live tables, on Dora folders as jobs leave them: finished, half done, missing, broken."""
import contextlib
import csv
import io
import json
import math
import pickle
import re
import shutil
import subprocess
import sys
import types
import typing as tp
from collections import OrderedDict
from pathlib import Path

import pytest
from dora import XP, Explorer
from dora.conf import DoraConfig
from dora.grid import RunGridArgs, run_grid
from dora.main import DecoratedMain
from omegaconf import OmegaConf

from magnet_plugin import cli, environment, records, slurm
from magnet_plugin.metrics.machine import made_with
from magnet_plugin.sweeps import jobs, plot, rows, settings, table

CONFIG = {"optim": {"epochs": 3, "updates_per_epoch": 4}, "transformer_lm": {"n_q": 4, "subcodes_context": 5},
          "masking": {"span_len": 3},
          "dataset": {"segment_duration": 10, "batch_size": 8, "generate": {"num_samples": 10, "segment_duration": None}},
          "generate": {"lm": {"gen_duration": None}}}


class ToyMain(DecoratedMain):
    """As much of the plugin's Dora main as a grid needs; composes in no time."""

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
    raise AssertionError("a report runs nothing")


def epoch(ce: float, **stages: dict) -> dict:
    """An epoch as MagnetSolver writes it."""
    losses = {"ce": ce, "ppl": math.exp(ce), **{f"ce_q{q}": ce + q / 10 for q in (1, 2, 3, 4)}}
    return {"train": {"ce": ce + 0.5, "lr": 0.1, "duration": 8.0}, "valid": {**losses, "duration": 2.0}, **stages}


END = {"evaluate": {"ce": 2.0, "fad": 4.5, "text_consistency": 0.25, "instrument_accuracy": 0.5},
       "generate": {"rtf": 0.4, "duration": 5.0}}
SPANS = [{"masking.span_len": span, "transformer_lm.subcodes_context": context}
         for context in (5, -1) for span in (1, 2, 10)]


class Dora:
    """A Dora folder, and a grid of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.main = ToyMain(folder)
        self.monkeypatch = monkeypatch

    def grid(self, wanted: tp.Sequence[dict], kind: type = Explorer, name: str = "toy") -> Explorer:
        def explore(launcher: tp.Any) -> None:
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
        """What a job leaves behind."""
        folder = self.folder(job)
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".argv.json").write_text(json.dumps(self.argv(job)))
        OmegaConf.save(self.main.get_xp(self.argv(job)).cfg, folder / ".hydra" / "config.yaml")
        (folder / "solver.log.0").write_text("begun\n")
        if history:
            (folder / "history.json").write_text(json.dumps(history))
        return folder

    def table(self) -> table.Table:
        return table.Table.of("toy", jobs.find_jobs(self.main, "toy").jobs)


@pytest.fixture
def dora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dora:
    return Dora(tmp_path, monkeypatch)


@pytest.fixture
def mixed(dora: Dora) -> Dora:
    """Six jobs: one finished, one half, one broken, one that is all NaN, one that has only begun, one missing."""
    dora.grid(SPANS)
    dora.ran(SPANS[0], epoch(5.0), epoch(3.0), epoch(4.0, **END))
    dora.ran(SPANS[1], epoch(2.5))
    dora.ran(SPANS[2], epoch(1.0)).joinpath("history.json").write_text('[{"train": {"ce": 1.0')
    dora.ran(SPANS[3], epoch(math.nan), epoch(math.nan), epoch(math.nan))
    dora.ran(SPANS[4])
    return dora


def cells(text: str) -> list[list[str]]:
    """Head and rows of a Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not set(line) <= set("|-: ")]


def column(text: str, head: str) -> list[str]:
    heads, *body = cells(text)
    return [row[heads.index(head)] for row in body]


def test_every_job_has_a_row_with_its_state(mixed: Dora) -> None:
    found = mixed.table()
    assert [job.status for job in found.jobs] == ["finished", "half", "broken", "finished", "half", "missing"]
    text = table.markdown(found)
    states = column(text, "state")
    assert states[0] == states[3] == "finished" and states[2] == "**broken**" and states[5] == "**missing**"
    assert re.fullmatch(r"unknown, silent for \d+s", states[1])
    assert column(text, "epochs") == ["3 of 3", "1 of 3", "0 of 3", "3 of 3", "0 of 3", "0 of 3"]
    assert column(text, "span length") == ["1", "2", "10"] * 2
    assert column(text, "context") == ["5"] * 3 + ["all"] * 3
    assert column(text, "signature") == [f"`{mixed.folder(job).name}`" for job in SPANS]
    whole = table.document(found, [], [], [])
    assert f"{mixed.folder(SPANS[2]).name} is broken: history.json: Expecting" in whole
    assert "All jobs: `solver=magnet/debug`" in whole


def test_the_best_of_a_column_is_bold_and_nan_is_never(mixed: Dora) -> None:
    text = table.markdown(mixed.table())
    assert column(text, "valid ce ↓") == ["4.000", "**2.500**", "–", "NaN", "–", "–"]
    assert column(text, "valid best ce ↓") == ["3.000", "**2.500**", "–", "–", "–", "–"]
    assert column(text, "valid at epoch") == ["2", "1", "–", "–", "–", "–"]
    assert column(text, "train s/update ↓") == ["2.000", "2.000", "–", "2.000", "–", "–"], "no best of equals"
    assert column(text, "evaluate FAD ↓") == ["4.500", *"–––––"], "no best of one"


def test_more_is_better_for_some(dora: Dora) -> None:
    dora.grid(SPANS[:4])
    dora.ran(SPANS[3], epoch(1.0, evaluate={"text_consistency": 0.1}))
    for job, consistency in zip(SPANS, (0.2, 0.3, 0.3)):
        dora.ran(job, *[epoch(1.0)] * 2, epoch(1.0, evaluate={"text_consistency": consistency, "novel_metric": consistency}))
    text = table.markdown(dora.table())
    assert column(text, "evaluate text consistency ↑") == ["0.200", "**0.300**", "**0.300**", "0.100"]
    assert column(text, "evaluate novel metric") == ["0.2", "0.3", "0.3", "–"], "shown, and not judged"


def test_nan_before_the_best(dora: Dora) -> None:
    dora.grid(SPANS[:3])
    for job, loss in zip(SPANS, (math.nan, 2.0, math.inf)):
        dora.ran(job, epoch(1.0, evaluate={"ce": loss}))
    assert column(table.markdown(dora.table()), "evaluate ce ↓") == ["NaN", "2.000", "inf"], "no best of one"
    records.keep_stage(dora.folder(SPANS[2]), "evaluate", {"ce": 1.5}, 1)
    assert column(table.markdown(dora.table()), "evaluate ce ↓") == ["NaN", "2.000", "**1.500**"]


def test_the_csv_has_it_all_in_full_precision(mixed: Dora) -> None:
    found = mixed.table()
    body = list(csv.DictReader(io.StringIO(table.text_csv(found))))
    assert [line["status"] for line in body] == [job.status for job in found.jobs]
    assert [line["transformer_lm.subcodes_context"] for line in body] == ["5"] * 3 + ["-1"] * 3
    first = body[0]
    assert float(first["valid.ppl"]) == math.exp(4.0) and first["epochs_wanted"] == "3" and first["train.lr"] == "0.1"
    assert math.isnan(float(body[3]["valid.ce"])) and body[5]["valid.ce"] == "" and "Expecting" in body[2]["fault"]


def test_what_follows_from_a_history() -> None:
    row = rows.flatten([epoch(5.0), epoch(3.0), epoch(math.nan), epoch(4.0, **END)], CONFIG)
    assert (row["valid.best_ce"], row["valid.best_epoch"], row["valid.ce"]) == (3.0, 2, 4.0)
    # ten clips in batches of eight are two batches: 2 * 0.4 * 10 s of work
    assert row["generate.seconds_per_clip"] == pytest.approx(2 * 0.4 * 10 / 10)
    longer = {**CONFIG, "generate": {"lm": {"gen_duration": 30}}}
    assert rows.flatten([END], longer)["generate.seconds_per_clip"] == pytest.approx(2.4)
    assert "generate.seconds_per_clip" not in rows.flatten([END], {}), "not known, not guessed"
    early = [epoch(1.0, **END), epoch(2.0)]
    assert rows.flatten(early, CONFIG)["evaluate.fad"] == 4.5, "the last that there is"


@pytest.mark.parametrize("content, said", [
    ('[{"train": {"ce"', "history.json: Expecting"), ("", "history.json: Expecting value"),
    ('{"train": 1}', "holds a dict, not a list"), ('[{"train": {"ce": 1}}, [3]]', "epoch 2 is not a table of stages")])
def test_a_history_that_cannot_be_read_is_told(dora: Dora, content: str, said: str) -> None:
    folder = dora.ran(SPANS[0])
    (folder / "history.json").write_text(content)
    job = records.read_job(folder)
    assert job.status == job.state == "broken" and said in str(job.fault)
    assert rows.row_of(job) == ({"train.ce": 1.0} if "[3]" in content else {}), "what came before is kept"


def test_references_in_a_kept_config_are_followed() -> None:
    cfg = {"optim": {"epochs": "${base.epochs}", "lr": "???"}, "base": {"epochs": 7}, "device": "${magnet.device:}",
           "loop": "${loop}"}
    assert records.look(cfg, "optim.epochs") == 7
    assert [records.look(cfg, path) for path in ("optim.lr", "device", "loop", "optim.none.such", "none")] == [None] * 5


def test_slurms_word_counts_where_the_job_is_not_finished() -> None:
    argv = ["optim.epochs=2"]
    running = records.Job("a", argv, history=[epoch(1.0)], begun=True, slurm="RUNNING")
    assert (running.status, running.state) == ("half", "running")
    assert records.Job("a", argv, slurm="PENDING").state == "pending"
    assert table.state(records.Job("a", argv, slurm="PENDING")) == "**missing**, pending"
    assert records.Job("a", argv, history=[epoch(1.0)] * 2, begun=True, slurm="CANCELLED by 0").state == "finished"
    assert records.Job("a", argv, begun=True, slurm="CANCELLED by 0").state == "cancelled"
    assert records.Job("a", argv, begun=True, slurm="UNKNOWN").state == "unknown"


def test_slurms_accounting_is_asked_and_no_one_else(dora: Dora, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from submitit import SlurmJob
    dora.grid(SPANS[:4])
    for index, job in enumerate(SPANS[:3]):
        kept = SlurmJob(tmp_path, f"90210_{index}", [0])
        (dora.ran(job, epoch(1.0)) / "job.pkl").write_bytes(pickle.dumps((kept, [kept], [])))
    (dora.folder(SPANS[2]) / "job.pkl").write_bytes(b"half a pickle")
    for program in ("sacct", "squeue", "sbatch", "scancel"):
        script = tmp_path / "bin" / program
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\necho {program} >> {tmp_path}/asked\n"
                          "printf 'JobID|State|NodeList\\n90210_0|RUNNING|a\\n90210_1|CANCELLED by 0|a\\n'\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert [job.state for job in jobs.find_jobs(dora.main, "toy").jobs] == ["running", "cancelled", "unknown", "missing"]
    assert set((tmp_path / "asked").read_text().split()) == {"sacct"}
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert [job.state for job in jobs.find_jobs(dora.main, "toy").jobs] == ["unknown"] * 3 + ["missing"]


EVALUATIONS = [{"continue_from": "//sig/0a1b2c3d", "generate.lm.decoding_steps": steps, "execute_only": "evaluate"}
               for steps in ("[4,2]", "[8,2]")]


def test_jobs_that_are_one_stage_of_the_same_model(dora: Dora) -> None:
    dora.grid(EVALUATIONS)
    dora.ran(EVALUATIONS[0], {"evaluate": {"fad": 3.0}})
    found = dora.table()
    assert [job.status for job in found.jobs] == ["finished", "missing"]
    text = table.markdown(found)
    assert cells(text)[0] == ["decoding steps", "state", "evaluate FAD ↓", "signature"], "no epochs"
    assert "continue_from=//sig/0a1b2c3d" in table.document(found, [], [], [])


def test_stages_run_alone_are_kept_beside_the_history(dora: Dora) -> None:
    folder = dora.ran(SPANS[0], *[epoch(3.0, evaluate={"fad": 5.0})] * 3)
    records.keep_stage(folder, "evaluate", {"fad": 4.0}, 3)
    records.keep_stage(folder, "generate", {"rtf": 0.1}, 3)
    row = rows.row_of(records.read_job(folder))
    assert (row["evaluate.fad"], row["generate.rtf"]) == (4.0, 0.1) and "evaluate.epochs" not in row
    (folder / "history.json").write_text(json.dumps([epoch(3.0)] * 3 + [epoch(2.0, evaluate={"fad": 3.0})]))
    assert rows.row_of(records.read_job(folder))["evaluate.fad"] == 3.0, "a later epoch is newer"


def test_a_trained_job_evaluated_in_place_is_still_a_training(dora: Dora) -> None:
    folder = dora.ran(SPANS[0], *[epoch(3.0)] * 3)
    (folder / ".argv.json").write_text(json.dumps([*dora.argv(SPANS[0]), "execute_only=evaluate", "execute_inplace=true"]))
    job = records.read_job(folder)
    assert job.stage_alone is None and job.epochs == 3 and job.status == "finished"


def test_what_dora_was_asked_for_counts_where_the_grid_has_changed(dora: Dora) -> None:
    dora.grid(SPANS[:2])
    links = dora.main.dora.dir / "grids" / "toy"
    links.mkdir(parents=True)
    for job in reversed(SPANS[3:]):
        dora.ran(job, epoch(1.0))
        (links / dora.folder(job).name).symlink_to(dora.folder(job))
    found = jobs.find_jobs(dora.main, "toy")
    assert [job.settings["masking.span_len"] for job in found.jobs] == ["1", "2", "10"]
    assert "would ask for others now" in found.notes[0] and "MAGNET_GRID_OVERRIDES" in found.notes[0]
    dora.grid(SPANS[:4])
    both = jobs.find_jobs(dora.main, "toy")
    assert [job.status for job in both.jobs] == ["missing"] * 3 + ["half"] * 3 and "no longer in the grid" in both.notes[0]


def test_a_known_job_is_not_composed_again(dora: Dora, monkeypatch: pytest.MonkeyPatch) -> None:
    dora.grid(SPANS[:1])
    folder = dora.ran(SPANS[0], epoch(1.0))
    (dora.main.dora.dir / "grids" / "toy").mkdir(parents=True)
    (dora.main.dora.dir / "grids" / "toy" / folder.name).symlink_to(folder)
    monkeypatch.setattr(ToyMain, "get_xp", lambda self, argv: pytest.fail("composed"))
    assert [job.epochs_wanted for job in dora.table().jobs] == [3]


def test_nothing_is_scheduled_and_nothing_written(dora: Dora, monkeypatch: pytest.MonkeyPatch) -> None:
    from dora.shep import Shepherd
    monkeypatch.setattr(Shepherd, "__init__", lambda *_: pytest.fail("a Shepherd cancels orphans and submits"))
    dora.grid(SPANS)
    found = jobs.find_jobs(dora.main, "toy")
    assert {job.status for job in found.jobs} == {"missing"} and len(found.jobs) == 6
    assert "None of the jobs has begun" in found.notes[-1]
    assert list(dora.main.dora.dir.iterdir()) == []


def test_settings_have_short_names_that_tell_them_apart() -> None:
    wanted = [{"a.depth": 1, "b.depth": 2, "optim.lr": 0.1, "label": "x"}, {"a.depth": 3, "b.depth": 4, "optim.lr": 0.1}]
    found = settings.varied([records.Job(str(n), [f"{key}={value}" for key, value in job.items()])
                             for n, job in enumerate(wanted)])
    assert {one.name: one.values for one in found} == {"a depth": ("1", "3"), "b depth": ("2", "4"), "label": ("x", "–")}
    assert found[0].numbers == [1, 3] and found[2].numbers is None
    implied = settings.varied([records.Job("a", ["masking.span_len=5"]), records.Job("b", [], cfg=CONFIG)])
    assert implied[0].values == ("5", "3"), "what a job does not name is in its config"


def lines_of(axis: tp.Any) -> dict[str, tp.Any]:
    return {line.get_label(): line for line in axis.get_lines() if not line.get_label().startswith("_")}


def test_metrics_are_drawn_over_the_first_number(mixed: Dora) -> None:
    figure = plot.metrics_figure(mixed.table())
    by_title = {axis.get_ylabel(): axis for axis in figure.axes}
    axis = by_title["least cross entropy, nats a token"]
    assert axis.get_xlabel() == "span length (frames); hollow: unfinished" and axis.get_title() == "valid (less is better)"
    found = lines_of(axis)
    assert list(found) == ["context 5", "context all"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["context 5", "context all"]
    assert list(found["context 5"].get_xdata()) == [1, 2, 10]
    values = list(found["context 5"].get_ydata())
    assert values[:2] == [3.0, 2.5] and math.isnan(values[2])
    hollow = [line for line in axis.get_lines() if line.get_label() == "_unfinished" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in hollow] == [[2]] and hollow[0].get_markerfacecolor() == "white"
    assert "Fréchet audio distance" in by_title and "seconds per clip" in by_title


def test_the_loss_is_drawn_for_every_job_that_has_one(mixed: Dora) -> None:
    figure = plot.loss_figure(mixed.table())
    axis, = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "validation cross entropy, nats a token")
    assert list(lines_of(axis)) == ["span length 1, context 5", "span length 2, context 5", "span length 1, context all"]
    assert list(lines_of(axis)["span length 1, context 5"].get_ydata()) == [5.0, 3.0, 4.0]


def test_words_have_places_of_their_own(dora: Dora) -> None:
    wanted = [{"generate.lm.span_arrangement": word} for word in ("stride1", "nonoverlap")]
    dora.grid(wanted)
    for job in wanted:
        dora.ran(job, *[epoch(1.0)] * 2, epoch(1.0, **END))
    axis = plot.metrics_figure(dora.table()).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["spans stride1", "spans nonoverlap"]


def test_without_anything_to_show_nothing_is_drawn(dora: Dora, tmp_path: Path) -> None:
    dora.grid(SPANS)
    assert plot.draw(dora.table(), tmp_path) == []


def live(dora: Dora, explorer: Explorer) -> str:
    """What `dora grid --no_monitoring --dry_run` prints, without colours."""
    slurm.take_over(dora.main)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run_grid(dora.main, explorer, "toy", args=RunGridArgs(monitor=False, dry_run=True))
    return re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())


def explorers() -> tp.Any:
    import importlib
    return importlib.import_module(f"{environment.grids_package()}._explorers")


def test_the_live_table_of_a_training_grid(mixed: Dora) -> None:
    text = live(mixed, mixed.grid(SPANS, explorers().TrainExplorer))
    groups, heads, *body = [line for line in text.splitlines() if "|" in line]
    assert [part.strip() for part in groups.split("|")] == ["Meta", "job", "run", "train", "valid", "evaluate", "generate"]
    assert re.split(r"  +", heads.split("|")[4].strip()) == ["ce", "ppl", *(f"ce q{q}" for q in (1, 2, 3, 4)), "best ce",
                                                             "at epoch"]
    assert re.split(r"  +", heads.split("|")[1].strip()) == ["span length", "context"]
    assert heads.split("|")[2].split() == ["state", "epoch", "ping"]
    first = [part.split() for part in body[0].split("|")]
    assert first[1] == ["1", "5"] and first[2][:2] == ["finished", "3/3"] and first[3] == ["4.500", "2.000", "8.0"]
    assert first[4] == ["4.000", "54.6", "4.100", "4.200", "4.300", "4.400", "3.000", "2"]
    assert first[6] == ["0.800", "0.400", "5.0"]
    assert re.search(r"unknown +1/3 +\d+s", body[1]) and "broken" in body[2] and " nan" in body[3]
    assert re.search(r"missing +0/3 ", body[5]) and len(body) == 6
    assert "ce prompt" not in heads and "KLD" not in heads, "columns that no job has are left out"


def test_the_live_table_of_an_evaluation_grid(dora: Dora) -> None:
    explorer = dora.grid(EVALUATIONS, explorers().EvalExplorer)
    dora.ran(EVALUATIONS[0], {"evaluate": {"fad": 3.0, "kld": 1.25, "kld_pq": 1.25}, "generate": {"rtf": 0.4}})
    text = live(dora, explorer)
    groups, heads, first, second = [line for line in text.splitlines() if "|" in line]
    assert [part.strip() for part in groups.split("|")] == ["Meta", "job", "run", "evaluate", "generate"]
    assert heads.split("|")[2].split() == ["state", "ping"] and heads.split("|")[3].split() == ["FAD", "KLD"]
    assert re.search(r"\[4,2\] +\| finished +\d+s +\| +3.000 +1.250 +\| +0.800 +0.400", first)
    assert re.search(r"\[8,2\] +\| missing", second)


def test_the_live_table_is_made_anew_each_time(dora: Dora) -> None:
    explorer = dora.grid(SPANS[:2], explorers().TrainExplorer)
    assert "train" not in live(dora, explorer).replace("//", "")
    dora.ran(SPANS[0], epoch(1.0))
    assert "best ce" in live(dora, explorer)
    shutil.rmtree(dora.folder(SPANS[0]))
    assert "best ce" not in live(dora, explorer)


def run_report(args: list[str], dora: Dora, monkeypatch: pytest.MonkeyPatch) -> int:
    """The command in this process, on a toy main."""
    monkeypatch.setitem(sys.modules, "magnet_plugin.train", types.SimpleNamespace(main=dora.main))  # type: ignore[arg-type]
    monkeypatch.setattr(jobs, "grid_names", lambda: ["toy"])
    return cli.main(["grid-report", *args])


def test_the_command_writes_table_and_pictures(mixed: Dora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture) -> None:
    records.keep_machine(mixed.folder(SPANS[0]), {"commit": "0123456789abcdef", "measured_on": "A Chip", "cores": 2})
    out = tmp_path / "out"
    assert run_report(["toy", "--out", str(out)], mixed, monkeypatch) == 0
    names = ["toy.md", "toy.csv", "toy-metrics.png", "toy-loss.png"]
    assert capsys.readouterr().out.split() == [str(out / name) for name in names]
    text = (out / "toy.md").read_text()
    assert "6 jobs: 2 finished, 2 half done, 1 missing, 1 broken" in text and "![Metrics](toy-metrics.png)" in text
    assert "- commit: 0123456789\n- run on: A Chip" in text and re.search(r"`magnet .*`, \d{4}-\d\d-\d\d \d\d:\d\d", text)
    assert all((out / name).read_bytes()[:4] == b"\x89PNG" for name in names[2:])
    assert run_report(["toy", "--out", str(out), "--csv", "--no-plots"], mixed, monkeypatch) == 0
    assert capsys.readouterr().out == (out / "toy.csv").read_text()
    assert "![" not in (out / "toy.md").read_text()


def test_without_matplotlib_the_tables_are_written_and_it_says_so(mixed: Dora, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch,
                                                                  capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run_report(["toy", "--out", str(tmp_path / "out")], mixed, monkeypatch) == 0
    captured = capsys.readouterr()
    assert captured.err == "no pictures were drawn: pip install matplotlib\n"
    assert "![" not in (tmp_path / "out" / "toy.md").read_text()


def test_the_commit_of_a_repository_around_an_installation_is_not_its_own(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True,
                       capture_output=True)
    (tmp_path / "venv").mkdir()
    (tmp_path / "own.py").write_text("1")
    git("init")
    git("add", "own.py")
    git("commit", "-m", "first")
    assert made_with(tmp_path / "venv", ())["commit"] is None
    own = made_with(tmp_path, ())
    assert len(own["commit"]) == 40 and own["uncommitted_changes"] is False


def test_an_unknown_grid_is_one_line_with_the_known_ones(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["grid-report", "magnet.ablate_spam"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("magnet: error: there is no grid magnet.ablate_spam; there are ") and said.count("\n") == 1
    assert "magnet.ablate_span" in said and "magnet.tiny.ablate_span" in said and "_base" not in said


def test_a_real_grid_of_which_nothing_has_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture) -> None:
    from magnet_plugin.train import main as dora_main
    monkeypatch.setattr(dora_main.dora, "dir", tmp_path / "runs")
    monkeypatch.delenv("MAGNET_GRID_OVERRIDES", raising=False)
    assert cli.main(["grid-report", "magnet.tiny.ablate_span", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "magnet.tiny.ablate_span.md").read_text()
    assert column(text, "state") == ["**missing**"] * 12 and column(text, "epochs") == ["0 of 2"] * 12
    assert "12 jobs: 0 finished, 0 half done, 12 missing, 0 broken" in text and not (tmp_path / "runs").exists()
    assert "None of the jobs has begun" in capsys.readouterr().err
    assert cli.main(["grid-report", "magnet.ablate_span", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "magnet: error: the jobs of magnet.ablate_span cannot be composed" in said and "MAGNET_GRID_OVERRIDES" in said
    assert said.count("\n") == 1
