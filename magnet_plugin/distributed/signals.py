"""SLURM's signals: noted at once, obeyed between two steps, answered by requeueing the job.

SLURM tells a job that its time is nearly over, or that it is preempted, by a signal to each of its processes. submitit
answers in the middle of whatever runs, and passes over SIGTERM; here the training decides when.
"""
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import typing as tp

logger = logging.getLogger(__name__)

#: Between a SIGTERM and the end of a data worker, in seconds: time to reach the next step and to save.
WORKER_GRACE = 120
#: For how long ranks other than the first wait for SLURM to end them, in seconds.
REQUEUE_GRACE = 300


class Preempted(Exception):
    """A signal asked the run to stop; raised between two steps."""


def numbers() -> tuple[int, ...]:
    """The signals that mean "save and requeue": SIGUSR1, SIGTERM and submitit's (SUBMITIT_PREEMPT_SIGNAL, else USR2).

    Raises:
        ValueError: SUBMITIT_PREEMPT_SIGNAL names no signal.
    """
    name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    own = getattr(signal, f"SIG{name}", None)
    if own is None:
        raise ValueError(f"SUBMITIT_PREEMPT_SIGNAL={name} is no signal; unset it, or give a name such as USR2")
    return tuple(sorted({signal.SIGUSR1, signal.SIGTERM, own}))


class Listener:
    """While entered, a signal is noted in `signum` (0: none yet) instead of being acted on.

    Python lets only the main thread listen; in another one nothing is ever noted.

    Args:
        workers: data workers will be started meanwhile.
    """

    def __init__(self, workers: bool = False) -> None:
        self.signum = 0
        self._workers = workers
        self._owner = os.getpid()
        self._previous: dict[int, tp.Any] = {}

    def __enter__(self) -> "Listener":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers()}
            if self._workers:
                _start_fork_server()             # it inherits that the signals are ignored
            for number in self._previous:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *error: tp.Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, signum: int, frame: tp.Any) -> None:
        if os.getpid() != self._owner:           # a forked child: as if nobody listened
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.signum = self.signum or signum

    def leave(self, signum: int, rank: int) -> tp.NoReturn:
        """End the process after the state was saved: requeue where SLURM runs it, else say how to go on.

        Args:
            signum: what all ranks agreed on, which this one may not have received itself.
            rank: the first requeues, the others wait to be ended with the job.
        """
        name = signal.Signals(signum).name
        submitit = [handler.__self__ for handler in self._previous.values()
                    if hasattr(getattr(handler, "__self__", None), "checkpoint_and_try_requeue")]
        if not submitit:
            logger.warning("%s: the state is saved; the same command goes on from here.", name)
        elif signum == signal.SIGTERM and job_state() not in ("RUNNING", ""):
            logger.warning("%s: the state is saved; SLURM itself has cancelled or requeued the job.", name)
        elif rank == 0:
            logger.warning("%s: the state is saved; requeueing the job.", name)
            submitit[0].checkpoint_and_try_requeue(signum)
        else:
            time.sleep(REQUEUE_GRACE)
        sys.exit(128 + signum)


def job_state() -> str:
    """State of the SLURM job that this process belongs to; empty where it cannot be told."""
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={os.environ.get('SLURM_JOB_ID', '')}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def shield_worker() -> None:
    """In a data worker: SLURM signals every process of a job, and the workers have to live until the state is saved, and
    no longer than the process they work for."""
    for number in numbers():
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """torch's workers watch the process that forked them, which for a fork server's is not the one that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _start_fork_server() -> None:
    """Start the process that forks data workers, where there is such: a signal's default action would end it.

    It imports what they need, once: each worker of each epoch did so before.
    """
    if multiprocessing.get_start_method(allow_none=True) == "forkserver":
        from multiprocessing import forkserver
        multiprocessing.set_forkserver_preload(["magnet_plugin.solvers.preemption"])
        forkserver.ensure_running()
