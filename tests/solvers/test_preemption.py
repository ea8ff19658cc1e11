"""A training that a signal stops at any step ends as if nothing had happened, whatever the number of data workers."""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import typing as tp
from pathlib import Path

import numpy as np
import pytest
import torch

import magnet_plugin

magnet_plugin.register()
from magnet_plugin.distributed import random_state as randomness  # noqa: E402
from magnet_plugin.distributed import signals  # noqa: E402
from magnet_plugin.distributed.signals import Listener  # noqa: E402
from magnet_plugin.models import checkpoints  # noqa: E402
from magnet_plugin.solvers import preemption  # noqa: E402

from ..helpers.toy_solver import EPOCHS, UPDATES, Dropout, Numbers, everything, once, same, solve  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict]:
    return {workers: everything(solve(tmp_path_factory.mktemp("undisturbed"), workers)) for workers in (0, 2)}


@pytest.mark.parametrize("workers", (0, 2))
@pytest.mark.parametrize("stage, step, count, signum, kept", [
    ("train", 2, 1, signal.SIGUSR1, (1, 3)),           # in the first epoch, where no checkpoint is yet
    ("train", 3, 2, signal.SIGTERM, (2, 4)),
    ("train", UPDATES - 1, 2, signal.SIGUSR2, (2, UPDATES)),
    ("valid", 1, 2, signal.SIGUSR1, (2, UPDATES)),
    ("valid", 8, 1, signal.SIGUSR1, (1, UPDATES)),     # in the last step of the stage
    ("evaluate", 0, 1, signal.SIGUSR1, (3, UPDATES)),
    ("generate", 0, 2, signal.SIGUSR1, (3, UPDATES)),
])
def test_stopped_and_started_again_is_as_if_undisturbed(tmp_path: Path, undisturbed: dict, workers: int, stage: str,
                                                        step: int, count: int, signum: int, kept: tuple[int, int]) -> None:
    with pytest.raises(SystemExit) as stop:
        solve(tmp_path, workers, once(stage, step, count, signum))
    assert stop.value.code == 128 + signum
    path = next(tmp_path.glob("xps/*/preempted.th"))
    position = checkpoints.load(path)["position"]
    assert (position["epoch"], position["step"]) == kept
    resumed = solve(tmp_path, workers)
    assert same(everything(resumed), undisturbed[workers])
    assert not path.exists(), "it belongs to an epoch that is over"
    history = json.loads(next(tmp_path.glob("xps/*/history.json")).read_text())
    assert len(history) == EPOCHS


def test_stopped_before_the_first_step_after_a_stop(tmp_path: Path, undisturbed: dict) -> None:
    for at in (once("train", 3, 1, signal.SIGUSR1), once("start", 0, 1, signal.SIGUSR1)):
        with pytest.raises(SystemExit):
            solve(tmp_path, 0, at)
    assert same(everything(solve(tmp_path, 0)), undisturbed[0])


def test_stopped_again_and_again(tmp_path: Path, undisturbed: dict) -> None:
    """A signal in every second step; every other time also one before any step."""
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
    assert same(everything(solver), undisturbed[0])


def test_ended_without_a_signal_goes_on_from_what_save_updates_kept(tmp_path: Path, undisturbed: dict) -> None:
    def at(stage: str, step: int) -> None:
        if stage == "train" and step == 5:
            raise KeyboardInterrupt            # kill -9 runs nothing more, either
    with pytest.raises(KeyboardInterrupt):
        solve(tmp_path, 0, at, save_updates=2)
    drawn: list[int] = []
    solver = solve(tmp_path, 0, lambda stage, step: drawn.append(step) if stage == "train" else None, save_updates=2)
    assert drawn[:3] == [4, 5, 6], "kept after four updates"
    assert same(everything(solver), undisturbed[0])


def test_another_number_of_ranks_starts_the_epoch_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
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
    """SLURM signals ffmpeg as well, and the stage that needs it fails."""
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


def test_the_listener_gives_the_signals_back() -> None:
    handlers = [signal.getsignal(number) for number in signals.numbers()]
    with Listener() as listener:
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert listener.signum == signal.SIGUSR2, "the first counts"
    assert [signal.getsignal(number) for number in signals.numbers()] == handlers


def test_the_signal_of_submitit_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(signals.numbers()) == {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "HUP")
    assert set(signals.numbers()) == {signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM}
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR9")
    with pytest.raises(ValueError, match="SUBMITIT_PREEMPT_SIGNAL=USR9"):
        signals.numbers()


class Requeued(Exception):
    pass


class Submitit:
    """submitit's handlers, as it installs them."""

    def checkpoint_and_try_requeue(self, signum: int, frame: tp.Any = None) -> None:
        raise Requeued(signum)

    def bypass(self, signum: int, frame: tp.Any = None) -> None:
        pass


@pytest.mark.parametrize("signum, state, requeued", [
    (signal.SIGUSR1, "RUNNING", True), (signal.SIGUSR2, "RUNNING", True), (signal.SIGTERM, "RUNNING", True),
    (signal.SIGTERM, "", True), (signal.SIGTERM, "CANCELLED", False), (signal.SIGTERM, "PENDING", False)])
def test_a_job_is_requeued_unless_slurm_has_ended_it(monkeypatch: pytest.MonkeyPatch, signum: int, state: str,
                                                     requeued: bool) -> None:
    submitit = Submitit()
    monkeypatch.setattr(signals, "job_state", lambda: state)
    previous = {number: signal.getsignal(number) for number in signals.numbers()}
    try:
        signal.signal(signal.SIGTERM, submitit.bypass)
        signal.signal(signal.SIGUSR2, submitit.checkpoint_and_try_requeue)
        with Listener() as listener:
            pass
        with pytest.raises(Requeued if requeued else SystemExit):
            listener.leave(signum, rank=0)
        waited: list[float] = []
        monkeypatch.setattr(signals.time, "sleep", waited.append)
        with pytest.raises(SystemExit):
            listener.leave(signum, rank=1)
        assert bool(waited) == requeued, "other ranks stay until the first has requeued the job"
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def test_all_generators_come_back() -> None:
    model = torch.nn.Sequential(Dropout())
    kept = randomness.randomness(model)

    def draw() -> tuple:
        return random.random(), float(np.random.rand()), float(torch.rand(())), model[0](torch.ones(9)).tolist()
    first = draw()
    assert draw() != first
    randomness.put_back(kept, model)
    assert draw() == first


def test_items_draw_the_same_in_any_worker() -> None:
    def items(workers: int, order: list[int]) -> dict[int, tuple]:
        loader = torch.utils.data.DataLoader(Numbers(), sampler=order, num_workers=workers,
                                             worker_init_fn=_prepare)
        return {int(item[0, 0]): tuple(item[0].tolist()) for item in loader}
    one, two = items(1, [0, 1, 2, 3, 4]), items(2, [4, 2, 0, 3])
    assert all(one[index] == two[index] for index in two)
    assert len({item[2] for item in one.values()}) == 5 and len({item[3] for item in one.values()}) == 5


def _prepare(number: int) -> None:
    preemption.prepare_worker(number, seed=3)


def test_workers_end_with_a_killed_process() -> None:
    code = ("import multiprocessing, os, signal, tests.sleeper\n"
            "context = multiprocessing.get_context('forkserver')\n"
            "ready = context.Event()\n"
            "worker = context.Process(target=tests.sleeper.sleep, args=(ready,), daemon=True)\n"
            "worker.start(), ready.wait(20)\n"
            "print(worker.pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)")
    with tempfile.TemporaryFile("w+") as out:         # a pipe would stay open as long as the worker
        done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stdout=out)
        out.seek(0)
        worker = Path("/proc") / out.read().strip()
    end = time.monotonic() + 10
    while worker.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert done.returncode == -signal.SIGKILL and worker.name.isdigit() and not worker.exists()


def test_workers_outlive_the_signals() -> None:
    loader = torch.utils.data.DataLoader(Numbers(), batch_size=1, num_workers=2, worker_init_fn=_prepare, prefetch_factor=1)
    batches = iter(loader)
    next(batches), next(batches)                       # one of each worker: both have begun
    for number in signals.numbers():
        for worker in batches._workers:
            os.kill(worker.pid, number)
    assert len(list(batches)) == len(Numbers()) - 2
