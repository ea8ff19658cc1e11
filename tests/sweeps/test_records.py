"""What Dora keeps of jobs: histories, states, stages run alone, and which jobs a grid has."""
import json
import math
import pickle
import subprocess
from pathlib import Path

import pytest

from magnet_plugin.metrics.machine import made_with
from magnet_plugin.sweeps import jobs, records, rows, settings, table

from ..helpers.toy_grids import CONFIG, END, SPANS, Dora, ToyMain, epoch


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
