"""The plugin's jobs in a real SLURM: an array, two ranks, preempted, requeued, cancelled, failing."""
import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..runs import DEBUG, ROOT, dora, environment, without_times
from .cluster import Cluster
from .conftest import Records, report_line

pytestmark = pytest.mark.slurm
SHORT = [*DEBUG[:1], "num_threads=1", "optim.epochs=3", "optim.updates_per_epoch=30"]
GRID = "magnet.tiny.ablate_span"


def test_a_job_runs_and_is_accounted_for(cluster: Cluster) -> None:
    job = cluster.run("sbatch", "--gres=gpu:2", "--output=/dev/null", "--wrap",
                      "test $CUDA_VISIBLE_DEVICES = 0,1").split()[-1]
    states = cluster.wait(job, 60)
    report_line(f"job {job}: {states[job]}")
    assert states == {job: "COMPLETED"}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clean checkout of the committed state."""
    subprocess.run(["git", "clone", "--quiet", f"file://{ROOT}", str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def test_git_save_makes_jobs_run_the_committed_code(records: Records, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job fails immediately, and its traceback shows where its code was."""
    monkeypatch.setenv("MAGNET_GIT_SAVE", "true")
    command = ("launch", "--no_tail", *SHORT, "transformer_lm.card=1024")
    sheep = submitted(records, dora(records.folder, *command, cwd=clone).stdout)
    with open(clone / "magnet_plugin" / "solvers" / "magnet.py", "a") as file:
        file.write("# not committed\n")
    refused = dora(records.folder, "launch", "--no_tail", *SHORT, "label=dirty", cwd=clone, check=False)
    assert refused.returncode and "solvers/magnet.py" in refused.stdout and "--no_git_save" in refused.stdout
    assert records.over(sheep) == "FAILED"
    log = sheep.log.read_text()
    assert re.search(r'File "\S+/runs/codes/[0-9a-f]{40}/magnet_plugin/solvers/magnet.py"', log)
    assert "set transformer_lm.card=512" in log


def submitted(records: Records, out: str) -> Any:
    """Dora's Sheep of the job that a command has submitted."""
    found = re.search(r"Scheduled job (\d+) for sheep (\w+)", out)
    assert found, out
    return records.find(found[2])


def test_a_failed_job_reports_its_cause_and_a_cancelled_one_its_state(records: Records, cluster: Cluster) -> None:
    failing = records.submit(*SHORT, "transformer_lm.card=1024", "label=failing")
    cancelled = records.submit(*SHORT, "optim.epochs=100")
    records.follow(cancelled, "Train | Epoch 1")
    cluster.run("scancel", cancelled.job.job_id)
    assert records.over(cancelled, 90) == "CANCELLED" and records.over(failing) == "FAILED"
    assert records.find(failing.xp.sig).state() == "FAILED" and records.find(cancelled.xp.sig).state() == "CANCELLED"
    assert "set transformer_lm.card=512" in failing.log.read_text()
    assert "set transformer_lm.card=512" in str(failing.job.exception())


def test_what_slurm_refuses_is_reported_with_a_remedy(records: Records, monkeypatch: pytest.MonkeyPatch,
                                    capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MAGNET_SLURM_PARTITION", "elsewhere")
    with pytest.raises(SystemExit):
        records.submit(*SHORT, "label=refused")
    assert "invalid partition specified: elsewhere" in (error := capfd.readouterr().err)
    assert "MAGNET_SLURM_PARTITION" in error


def test_preempted_and_requeued_jobs_end_as_undisturbed_ones(records: Records, cluster: Cluster) -> None:
    """SIGUSR1 in the second epoch, and in the third `scontrol requeue`, which may leave no time to save the latest state."""
    twin = records.submit(*SHORT, "label=twin")
    sheep = records.submit(*SHORT, "label=disturbed", "checkpoint.save_updates=5")
    job = sheep.job.job_id
    records.follow(sheep, "Train | Epoch 2 | 6/30")
    cluster.run("scancel", "--signal=USR1", job)
    records.follow(sheep, "SIGUSR1: the state is saved. Requeueing the job")
    records.follow(sheep, "Train | Epoch 3 | 9/30")
    cluster.run("scontrol", "requeue", job)
    assert records.over(sheep) == "COMPLETED" and records.over(twin) == "COMPLETED"
    lines = cluster.run("sacct", "-X", "-D", "-n", "-P", "-j", job, "-o", "State").split()
    report_line(f"job {job}, run after run: {lines}")
    assert lines == ["REQUEUED", "REQUEUED", "COMPLETED"]
    resumed = re.findall(r"Resuming in epoch (\d) after (\d+) of 30 updates", sheep.log.read_text())
    assert [int(epoch) for epoch, _ in resumed] == [2, 3] and all(5 <= int(step) < 30 for _, step in resumed)
    assert len(records.history(sheep)) == 3
    assert without_times(records.history(sheep)) == without_times(records.history(twin))
    import torch

    from magnet_plugin.models import checkpoints
    one, two = (checkpoints.load(each.xp.folder / "checkpoint.th") for each in (sheep, twin))
    for name, value in one["model"].items():
        assert torch.equal(value, two["model"][name]), name
    assert not (sheep.xp.folder / "preempted.th").exists()


def test_two_ranks_launched_from_elsewhere_are_preempted(records: Records, cluster: Cluster, tmp_path: Path) -> None:
    """`dora launch` in a directory that has nothing to do with the plugin; SIGTERM as SLURM sends it before it preempts."""
    out = dora(records.folder, "-P", "magnet_plugin", "launch", "--no_tail", "-g", "2", *SHORT, "label=ranks", cwd=tmp_path)
    sheep = submitted(records, out.stdout)
    records.follow(sheep, "Train | Epoch 2 | 6/30")
    cluster.run("scancel", "--signal=TERM", sheep.job.job_id)
    records.follow(sheep, "SIGTERM: the state is saved. Requeueing the job")
    assert records.over(sheep) == "COMPLETED"
    second = Path(str(sheep.log).replace("_0_log", "_1_log")).read_text()
    for log in (sheep.log.read_text(), second):
        assert "Resuming in epoch 2 after" in log and "Distributed init" in log
    epochs = records.history(sheep)
    assert len(epochs) == 3 and epochs[-1]["valid"]["ce"] < epochs[0]["valid"]["ce"]


def test_the_span_grid_runs_as_an_array(records: Records, cluster: Cluster, tmp_path: Path) -> None:
    """Its twelve jobs, two at a time, read back as `dora grid` and `magnet grid-report` show them."""
    jobs = run_grid(records, GRID)
    assert len(jobs) == 12
    array = next(iter(jobs)).split("_")[0]
    script = next((records.folder / "runs" / "arrays").glob(f"*/{array}_submission.sh")).read_text()
    assert "--array=0-11%2" in script and "--partition=tiny" in script and "gres" not in script
    states = cluster.wait(array, 1200, members=12)
    for job, state in states.items():
        report_line(f"job {job} ({jobs[job]}): {state}")
    assert set(states.values()) == {"COMPLETED"}
    table = dora(records.folder, "grid", GRID, "--no_monitoring").stdout
    report_line(table)
    assert table.count("| finished  2/2") == 12 and "Scheduled" not in table
    # MAGNET_REPORTS=docs/results keeps what is shown there.
    folder = Path(os.environ.get("MAGNET_REPORTS") or tmp_path)
    rows = report(records, GRID, folder)
    assert {(row["masking.span_len"], row["transformer_lm.subcodes_context"]) for row in rows} == {
        (str(span), context) for span in (1, 2, 3, 4, 5, 10) for context in ("5", "-1")}
    for row in rows:
        history = records.history(records.find(row["signature"]))
        assert row["state"] == "finished" and len(history) == 2
        assert float(row["valid.ce"]) == pytest.approx(history[-1]["valid"]["ce"])
        assert float(row["evaluate.frechet"]) == pytest.approx(history[-1]["evaluate"]["frechet"])
        assert 0 < history[-1]["valid"]["ce"] < history[0]["valid"]["ce"]


def test_evaluations_wait_for_the_training_of_their_model(records: Records, cluster: Cluster, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_GRID_OVERRIDES", "dataset.evaluate.num_samples=8 dataset.evaluate.batch_size=8")
    jobs = run_grid(records, "magnet.tiny.ablate_hybrid")
    parent, array = next(job for job in jobs if "_" not in job), next(job for job in jobs if "_" in job).split("_")[0]
    assert len(jobs) == 6 and f"afterok:{parent}" in cluster.run("scontrol", "show", "job", array)
    states = {**cluster.wait(parent, 300), **cluster.wait(array, 600, members=5)}
    for job, state in states.items():
        report_line(f"job {job} ({jobs[job]}): {state}")
    assert set(states.values()) == {"COMPLETED"} and len(states) == 6
    assert cluster.started_at(array) >= cluster.ended_at(parent)
    rows = [row for row in report(records, "magnet.tiny.ablate_hybrid", tmp_path) if row["signature"] != jobs[parent]]
    assert {float(row["evaluate.instrument_accuracy"]) <= 1 for row in rows} == {True} and len(rows) == 5
    assert len({row["evaluate.frechet"] for row in rows}) == 5


def run_grid(records: Records, name: str) -> dict[str, str]:
    """Submit a grid. Returns the ids of its jobs with their signatures."""
    out = dora(records.folder, "grid", name, "--no_monitoring").stdout
    jobs = dict(re.findall(r"Scheduled job (\w+) for sheep (\w+)", out))
    assert jobs, out[-3000:]
    return jobs


def report(records: Records, name: str, folder: Path) -> list[dict[str, str]]:
    """Lines of the CSV file that `magnet grid-report` writes next to its page and pictures."""
    command = [sys.executable, "-m", "magnet_plugin", "grid-report", name, "--out", str(folder)]
    done = subprocess.run(command, env=environment(records.folder), cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    report_line(done.stdout)
    assert all(line and Path(ROOT, line).exists() for line in done.stdout.split()), done.stdout
    with open(ROOT / folder / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
