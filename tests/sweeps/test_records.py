"""What is stored about a job: history, state, and stages that were run separately."""
import json

import pytest

from magnet_plugin.sweeps import records, rows, table

from ..helpers.toy_grids import SPANS, Dora, epoch


@pytest.mark.parametrize("content, fault", [
    ('[{"train": {"ce"', "history.json: Expecting"), ("", "history.json: Expecting value"),
    ('{"train": 1}', "contains a dict instead of a list"),
    ('[{"train": {"ce": 1}}, [3]]', "epoch 2 is not a dict of stages")])
def test_an_unreadable_history_makes_a_job_broken(dora: Dora, content: str, fault: str) -> None:
    folder = dora.ran(SPANS[0])
    (folder / "history.json").write_text(content)
    job = records.read_job(folder)
    assert job.status == job.state == "broken" and fault in str(job.fault)
    assert rows.row_of(job) == ({"train.ce": 1.0} if "[3]" in content else {}), "what came before is kept"


def test_references_in_a_stored_config_are_followed() -> None:
    cfg = {"optim": {"epochs": "${base.epochs}", "lr": "???"}, "base": {"epochs": 7}, "device": "${magnet.device:}",
           "loop": "${loop}"}
    assert records.get_value(cfg, "optim.epochs") == 7
    assert [records.get_value(cfg, path) for path in ("optim.lr", "device", "loop", "optim.none.such", "none")] == [None] * 5


def test_slurms_state_counts_for_a_job_that_is_not_finished() -> None:
    argv = ["optim.epochs=2"]
    running = records.Job("a", argv, history=[epoch(1.0)], started=True, slurm_state="RUNNING")
    assert (running.status, running.state) == ("incomplete", "running")
    assert records.Job("a", argv, slurm_state="PENDING").state == "pending"
    assert table.format_state(records.Job("a", argv, slurm_state="PENDING")) == "**missing**, pending"
    assert records.Job("a", argv, history=[epoch(1.0)] * 2, started=True, slurm_state="CANCELLED by 0").state == "finished"
    assert records.Job("a", argv, started=True, slurm_state="CANCELLED by 0").state == "cancelled"
    assert records.Job("a", argv, started=True, slurm_state="UNKNOWN").state == "unknown"


def test_stages_that_were_run_separately_are_stored_next_to_the_history(dora: Dora) -> None:
    folder = dora.ran(SPANS[0], *[epoch(3.0, evaluate={"fad": 5.0})] * 3)
    records.save_stage(folder, "evaluate", {"fad": 4.0}, 3)
    records.save_stage(folder, "generate", {"rtf": 0.1}, 3)
    row = rows.row_of(records.read_job(folder))
    assert (row["evaluate.fad"], row["generate.rtf"]) == (4.0, 0.1) and "evaluate.epochs" not in row
    (folder / "history.json").write_text(json.dumps([epoch(3.0)] * 3 + [epoch(2.0, evaluate={"fad": 3.0})]))
    assert rows.row_of(records.read_job(folder))["evaluate.fad"] == 3.0, "a later epoch is newer"


def test_a_trained_job_that_was_evaluated_in_place_still_trains(dora: Dora) -> None:
    folder = dora.ran(SPANS[0], *[epoch(3.0)] * 3)
    (folder / ".argv.json").write_text(json.dumps([*dora.argv(SPANS[0]), "execute_only=evaluate", "execute_inplace=true"]))
    job = records.read_job(folder)
    assert job.single_stage is None and job.epochs == 3 and job.status == "finished"
