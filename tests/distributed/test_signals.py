"""Preemption signals: recording them, requeueing, and data workers that survive them."""
import os
import signal
import subprocess
import sys
import tempfile
import time
import typing as tp
from pathlib import Path

import pytest
import torch

from magnet_plugin.distributed import signals
from magnet_plugin.distributed.signals import SignalRecorder, preemption_signals
from magnet_plugin.solvers import position

from ..helpers.toy_solver import Numbers


def test_the_recorder_keeps_the_first_signal_and_restores_the_handlers() -> None:
    handlers = [signal.getsignal(number) for number in preemption_signals()]
    with SignalRecorder() as recorder:
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert recorder.signum == signal.SIGUSR2
    assert [signal.getsignal(number) for number in preemption_signals()] == handlers


def test_the_signal_of_submitit_is_recorded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUBMITIT_PREEMPT_SIGNAL", raising=False)
    assert set(preemption_signals()) == {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "HUP")
    assert set(preemption_signals()) == {signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM}
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR9")
    with pytest.raises(ValueError, match="SUBMITIT_PREEMPT_SIGNAL=USR9 is not the name of a signal"):
        preemption_signals()


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
    previous = {number: signal.getsignal(number) for number in preemption_signals()}
    try:
        signal.signal(signal.SIGTERM, submitit.bypass)
        signal.signal(signal.SIGUSR2, submitit.checkpoint_and_try_requeue)
        with SignalRecorder() as recorder:
            pass
        with pytest.raises(Requeued if requeued else SystemExit):
            recorder.exit(signum, rank=0)
        waited: list[float] = []
        monkeypatch.setattr(signals.time, "sleep", waited.append)
        with pytest.raises(SystemExit):
            recorder.exit(signum, rank=1)
        assert bool(waited) == requeued, "other ranks wait until rank 0 has requeued the job"
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@pytest.mark.integ
def test_workers_end_with_a_killed_process() -> None:
    code = ("import multiprocessing, os, signal\n"
            "from tests.helpers import sleeper\n"
            "context = multiprocessing.get_context('forkserver')\n"
            "ready = context.Event()\n"
            "worker = context.Process(target=sleeper.sleep, args=(ready,), daemon=True)\n"
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


def _prepare(number: int) -> None:
    position.prepare_worker(number, seed=3)


def test_workers_survive_the_signals() -> None:
    loader = torch.utils.data.DataLoader(Numbers(), batch_size=1, num_workers=2, worker_init_fn=_prepare, prefetch_factor=1)
    batches = iter(loader)
    next(batches), next(batches)                       # one from each worker: both have started
    for number in preemption_signals():
        for worker in batches._workers:
            os.kill(worker.pid, number)
    assert len(list(batches)) == len(Numbers()) - 2
