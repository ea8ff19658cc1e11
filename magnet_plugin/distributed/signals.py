"""Handle SLURM's signals between two steps: save the state, then requeue the job.

SLURM announces preemption and the end of the time limit by a signal to each process of a job. submitit acts on it in the
middle of whatever runs, and ignores SIGTERM. Here the signal is only recorded, and the training decides when to act on it.
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

#: Seconds between a SIGTERM and the end of a data worker: enough to finish the current step and to save.
WORKER_GRACE = 120
#: Seconds that ranks other than 0 wait for SLURM to end them once rank 0 has requeued the job.
REQUEUE_GRACE = 300


class Preempted(Exception):
    """A signal requested the run to stop. Raised between two steps."""


def preemption_signals() -> tuple[int, ...]:
    """Return the signals that mean "save and requeue".

    These are SIGUSR1, SIGTERM and submitit's signal, which SUBMITIT_PREEMPT_SIGNAL names (USR2 by default).

    Raises:
        ValueError: SUBMITIT_PREEMPT_SIGNAL does not name a signal.
    """
    name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    own = getattr(signal, f"SIG{name}", None)
    if own is None:
        raise ValueError(f"SUBMITIT_PREEMPT_SIGNAL={name} is not the name of a signal. Unset it, or set it to a name such "
                         "as USR2")
    return tuple(sorted({signal.SIGUSR1, signal.SIGTERM, own}))


class SignalRecorder:
    """Record preemption signals within a context instead of acting on them.

    Python can handle signals only in the main thread. In any other thread nothing is recorded.

    Args:
        workers: whether data workers will be started within the context.

    Attributes:
        signum: the first signal received, 0 if none.
    """

    def __init__(self, workers: bool = False) -> None:
        self.signum = 0
        self._workers = workers
        self._owner = os.getpid()
        self._previous: dict[int, tp.Any] = {}

    def __enter__(self) -> "SignalRecorder":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, signal.SIG_IGN) for number in preemption_signals()}
            if self._workers:
                _start_fork_server()             # inherits that the signals are ignored
            for number in self._previous:
                signal.signal(number, self._record)
        return self

    def __exit__(self, *error: tp.Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _record(self, signum: int, frame: tp.Any) -> None:
        if os.getpid() != self._owner:           # a forked child: take the default action
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.signum = self.signum or signum

    def exit(self, signum: int, rank: int) -> tp.NoReturn:
        """End the process after the state was saved. If SLURM runs the job, requeue it.

        Args:
            signum: the signal that all ranks agreed on; this rank may not have received it.
            rank: rank of this process. Rank 0 requeues, the others wait until SLURM ends them.
        """
        name = signal.Signals(signum).name
        submitit = [handler.__self__ for handler in self._previous.values()
                    if hasattr(getattr(handler, "__self__", None), "checkpoint_and_try_requeue")]
        if not submitit:
            logger.warning("%s: the state is saved. Run the same command again to continue from here.", name)
        elif signum == signal.SIGTERM and job_state() not in ("RUNNING", ""):
            logger.warning("%s: the state is saved. SLURM itself has cancelled or requeued the job.", name)
        elif rank == 0:
            logger.warning("%s: the state is saved. Requeueing the job.", name)
            submitit[0].checkpoint_and_try_requeue(signum)
        else:
            time.sleep(REQUEUE_GRACE)
        sys.exit(128 + signum)


def job_state() -> str:
    """Return the state of the SLURM job of this process, or an empty string if squeue cannot report it."""
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={os.environ.get('SLURM_JOB_ID', '')}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def protect_worker() -> None:
    """Let a data worker survive preemption signals until the state is saved, but not its parent process.

    SLURM signals every process of a job, and the training still needs its workers to finish the current step.
    """
    for number in preemption_signals():
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """torch's workers monitor the process that forked them. With a fork server this is not the training process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _start_fork_server() -> None:
    """Start the process that forks data workers, if there is one, while signals are ignored: their default would end it.

    It imports the workers' modules once; otherwise every worker imports them in every epoch.
    """
    if multiprocessing.get_start_method(allow_none=True) == "forkserver":
        from multiprocessing import forkserver
        multiprocessing.set_forkserver_preload(["magnet_plugin.solvers.preemption"])
        forkserver.ensure_running()
