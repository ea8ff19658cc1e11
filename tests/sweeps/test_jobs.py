"""Which jobs a grid has, and what is known about them."""
import pickle
from pathlib import Path

import pytest

from magnet_plugin.sweeps import jobs

from ..helpers.toy_grids import SPANS, Dora, ToyMain, epoch
from .conftest import FakeSlurm


def test_slurms_accounting_is_queried_and_nothing_else(dora: Dora, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch,
                                                       tmp_path: Path) -> None:
    from submitit import SlurmJob
    dora.grid(SPANS[:4])
    for index, job in enumerate(SPANS[:3]):
        slurm_job = SlurmJob(tmp_path, f"{fake_slurm.first}_{index}", [0])
        (dora.ran(job, epoch(1.0)) / "job.pkl").write_bytes(pickle.dumps((slurm_job, [slurm_job], [])))
    (dora.folder(SPANS[2]) / "job.pkl").write_bytes(b"half a pickle")
    fake_slurm.set_states({f"{fake_slurm.first}_0": "RUNNING", f"{fake_slurm.first}_1": "CANCELLED by 0"})
    assert [job.state for job in jobs.find_jobs(dora.main, "toy").jobs] == ["running", "cancelled", "unknown", "missing"]
    assert fake_slurm.called() == {"sacct"}
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert [job.state for job in jobs.find_jobs(dora.main, "toy").jobs] == ["unknown"] * 3 + ["missing"]


def test_recorded_jobs_are_reported_if_the_grid_has_changed(dora: Dora) -> None:
    dora.grid(SPANS[:2])
    links = dora.main.dora.dir / "grids" / "toy"
    links.mkdir(parents=True)
    for job in reversed(SPANS[3:]):
        dora.ran(job, epoch(1.0))
        (links / dora.folder(job).name).symlink_to(dora.folder(job))
    found = jobs.find_jobs(dora.main, "toy")
    assert [job.settings["masking.span_len"] for job in found.jobs] == ["1", "2", "10"]
    assert "defines other jobs now" in found.notes[0] and "MAGNET_GRID_OVERRIDES" in found.notes[0]
    dora.grid(SPANS[:4])
    both = jobs.find_jobs(dora.main, "toy")
    assert [job.status for job in both.jobs] == ["missing"] * 3 + ["incomplete"] * 3
    assert "no longer in the grid" in both.notes[0]


def test_a_recorded_job_is_not_composed_again(dora: Dora, monkeypatch: pytest.MonkeyPatch) -> None:
    dora.grid(SPANS[:1])
    folder = dora.ran(SPANS[0], epoch(1.0))
    (dora.main.dora.dir / "grids" / "toy").mkdir(parents=True)
    (dora.main.dora.dir / "grids" / "toy" / folder.name).symlink_to(folder)
    monkeypatch.setattr(ToyMain, "get_xp", lambda self, argv: pytest.fail("composed"))
    assert [job.epochs_wanted for job in dora.table().jobs] == [3]


def test_nothing_is_scheduled_and_nothing_is_written(dora: Dora, monkeypatch: pytest.MonkeyPatch) -> None:
    from dora.shep import Shepherd
    monkeypatch.setattr(Shepherd, "__init__", lambda *_: pytest.fail("a Shepherd cancels orphans and submits"))
    dora.grid(SPANS)
    found = jobs.find_jobs(dora.main, "toy")
    assert {job.status for job in found.jobs} == {"missing"} and len(found.jobs) == 6
    assert "No job has started yet" in found.notes[-1]
    assert list(dora.main.dora.dir.iterdir()) == []
