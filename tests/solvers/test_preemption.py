"""A run that a signal stops at any step, once resumed, ends bit for bit as an uninterrupted one."""
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from magnet_plugin.distributed.saving import previous
from magnet_plugin.models import checkpoints

from ..helpers.toy_solver import EPOCHS, UPDATES, everything, once, same, solve

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict]:
    return {workers: everything(solve(tmp_path_factory.mktemp("uninterrupted"), workers)) for workers in (0, 2)}


@pytest.mark.parametrize("workers", (0, 2))
@pytest.mark.parametrize("stage, step, count, signum, saved", [
    ("train", 2, 1, signal.SIGUSR1, (1, 3)),           # in the first epoch, before any checkpoint
    ("train", 3, 2, signal.SIGTERM, (2, 4)),
    ("train", UPDATES - 1, 2, signal.SIGUSR2, (2, UPDATES)),
    ("valid", 1, 2, signal.SIGUSR1, (2, UPDATES)),
    ("valid", 8, 1, signal.SIGUSR1, (1, UPDATES)),     # in the last step of the stage
    ("evaluate", 0, 1, signal.SIGUSR1, (3, UPDATES)),
    ("generate", 0, 2, signal.SIGUSR1, (3, UPDATES)),
])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path, uninterrupted: dict, workers: int, stage: str,
                                                        step: int, count: int, signum: int, saved: tuple[int, int]) -> None:
    with pytest.raises(SystemExit) as stop:
        solve(tmp_path, workers, once(stage, step, count, signum))
    assert stop.value.code == 128 + signum
    path = next(tmp_path.glob("xps/*/preempted.th"))
    position = checkpoints.load(path)["position"]
    assert (position["epoch"], position["step"]) == saved
    resumed = solve(tmp_path, workers)
    assert same(everything(resumed), uninterrupted[workers])
    assert not path.exists(), "it is removed at the end of its epoch"
    history = json.loads(next(tmp_path.glob("xps/*/history.json")).read_text())
    assert len(history) == EPOCHS


def test_a_second_signal_directly_after_resuming_loses_nothing(tmp_path: Path, uninterrupted: dict) -> None:
    for at in (once("train", 3, 1, signal.SIGUSR1), once("start", 0, 1, signal.SIGUSR1)):
        with pytest.raises(SystemExit):
            solve(tmp_path, 0, at)
    assert same(everything(solve(tmp_path, 0)), uninterrupted[0])


@pytest.mark.integ
def test_a_run_that_is_stopped_every_few_steps_ends_as_an_uninterrupted_one(tmp_path: Path, uninterrupted: dict) -> None:
    """Alternately in the second step of a process, and before its first."""
    for number in range(3 * EPOCHS * UPDATES):
        count = [number % 2]

        def at(stage: str, step: int, count: list = count) -> None:
            count[0] += stage == "train" or stage == "start"
            if count[0] == 2:
                os.kill(os.getpid(), signal.SIGUSR1)
        try:
            solver = solve(tmp_path, 0, at)
            break
        except SystemExit:
            continue
    assert same(everything(solver), uninterrupted[0])


def test_a_killed_run_resumes_from_the_state_of_save_updates(tmp_path: Path, uninterrupted: dict) -> None:
    def at(stage: str, step: int) -> None:
        if stage == "train" and step == 5:
            raise KeyboardInterrupt            # like kill -9, this runs nothing more
    with pytest.raises(KeyboardInterrupt):
        solve(tmp_path, 0, at, save_updates=2)
    drawn: list[int] = []
    solver = solve(tmp_path, 0, lambda stage, step: drawn.append(step) if stage == "train" else None, save_updates=2)
    assert drawn[:3] == [4, 5, 6], "saved after four updates"
    assert same(everything(solver), uninterrupted[0])


def test_with_another_number_of_ranks_the_epoch_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit):
        solve(tmp_path, 0, once("train", 2, 2, signal.SIGUSR1))
    path = next(tmp_path.glob("xps/*/preempted.th"))
    state = checkpoints.load(path)
    state["position"]["ranks"] *= 2
    torch.save(state, path)
    drawn: list[int] = []
    solve(tmp_path, 0, lambda stage, step: drawn.append(step) if stage == "train" else None)
    assert drawn == [*range(UPDATES)] * 2 and "saved by 2 ranks" in caplog.text


def test_a_failing_stage_is_repeated_only_after_a_signal(tmp_path: Path) -> None:
    """SLURM also signals ffmpeg, and then the stage that needs it fails."""
    def fail(stage: str, step: int) -> None:
        if stage == "generate":
            raise RuntimeError("ffmpeg died")

    def after_signal(stage: str, step: int) -> None:
        if stage == "generate":
            os.kill(os.getpid(), signal.SIGUSR1)
            raise RuntimeError("ffmpeg died")
    with pytest.raises(SystemExit):
        solve(tmp_path / "one", 0, after_signal)
    assert list(tmp_path.glob("one/xps/*/preempted.th"))
    with pytest.raises(RuntimeError, match="ffmpeg"):
        solve(tmp_path / "two", 0, fail)


def checkpoint_of(folder: Path) -> Path:
    return next(folder.glob("xps/*/checkpoint.th"))


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_checkpoint_costs_one_epoch_and_changes_nothing(tmp_path: Path, uninterrupted: dict, tenth: int) -> None:
    """The run goes on from the checkpoint before it."""
    with pytest.raises(SystemExit):
        solve(tmp_path, 0, once("train", 0, 3, signal.SIGUSR1))         # In the last epoch; two checkpoints are written.
    path = checkpoint_of(tmp_path)
    assert previous(path).exists()
    path.write_bytes(path.read_bytes()[:path.stat().st_size * tenth // 10])
    assert same(everything(solve(tmp_path, 0)), uninterrupted[0])
    assert len(json.loads(path.with_name("history.json").read_text())) == EPOCHS
    left = {one.name for one in path.parent.iterdir() if "checkpoint" in one.name or "preempted" in one.name}
    assert left == {"checkpoint.th", "checkpoint.th.previous", "checkpoint.th.unreadable"}


def test_without_an_earlier_checkpoint_the_error_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        solve(tmp_path, 0, once("train", 0, 2, signal.SIGUSR1))
    path = checkpoint_of(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="checkpoint.th cannot be .*There is no earlier checkpoint; delete it"):
        solve(tmp_path, 0)
    assert path.exists()


def test_an_unreadable_state_within_an_epoch_costs_the_updates_of_that_epoch(tmp_path: Path, uninterrupted: dict) -> None:
    with pytest.raises(SystemExit):
        solve(tmp_path, 0, once("train", 3, 2, signal.SIGUSR1))
    path = next(tmp_path.glob("xps/*/preempted.th"))
    path.write_bytes(path.read_bytes()[:100])
    assert same(everything(solve(tmp_path, 0)), uninterrupted[0])


def test_a_history_that_is_older_than_the_checkpoint_is_written_again(tmp_path: Path) -> None:
    """As after a kill between the two, also if no epoch is left to train."""
    solve(tmp_path, 0)
    path = next(tmp_path.glob("xps/*/history.json"))
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole)[:-1]))
    solve(tmp_path, 0)
    assert path.read_text() == whole
