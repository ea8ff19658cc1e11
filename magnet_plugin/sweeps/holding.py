"""The lock of a run: at most one process trains it, and others can tell whether one does."""
from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
import typing as tp
from pathlib import Path

try:
    import fcntl
except ImportError:                 # Windows, on which nothing is locked.
    fcntl = None                    # type: ignore[assignment]

logger = logging.getLogger(__name__)
#: Locked by rank 0 for as long as a run's process lives; the system unlocks it when the process ends, however it ends.
LOCK = ".running"
#: Seconds to wait for a process that is about to end, and for the predecessor of a requeued SLURM job.
WAIT, WAIT_REQUEUED = 5.0, 300.0
_descriptors: set[int] = set()


@contextlib.contextmanager
def holding(folder: Path, wait: float = WAIT) -> tp.Iterator[None]:
    """Hold the run in `folder` within the context, on rank 0. On a file system without locks, this does nothing.

    Args:
        folder: the run.
        wait: seconds to wait for another process that holds it. A requeued SLURM job waits `WAIT_REQUEUED` for itself.
    Raises:
        ValueError: another process holds it.
    """
    descriptor = _open(folder)
    try:
        _acquire(descriptor, folder, wait)
        yield
    finally:
        if descriptor in _descriptors:          # Not in a process that was forked within the context.
            _descriptors.discard(descriptor)
            os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether a process works on the run in `folder`, as far as locks can tell."""
    if fcntl is None or not (folder / LOCK).exists():
        return False
    descriptor = _open(folder)
    try:
        return not _try(descriptor)
    finally:
        _descriptors.discard(descriptor)
        if descriptor >= 0:
            os.close(descriptor)


def holder_of(folder: Path) -> str:
    """Describe the process that holds a run, as far as it is known."""
    known = _read(folder)
    if "pid" not in known:
        return "another process"
    job = f", SLURM job {known['job']}" if known.get("job") else ""
    return f"process {known['pid']} on {known.get('host')}{job}, since {known.get('since')}"


def _acquire(descriptor: int, folder: Path, wait: float) -> None:
    job = os.environ.get("SLURM_JOB_ID", "")
    if not _try(descriptor):
        if job and _read(folder).get("job") == job:
            wait = max(wait, WAIT_REQUEUED)
        logger.info("Waiting up to %g s for %s, which works on this run.", wait, holder_of(folder))
        end = time.monotonic() + wait
        while not _try(descriptor):
            if time.monotonic() > end:
                raise ValueError(f"the run in {folder} is in use by {holder_of(folder)}; wait for it to end, stop it, or "
                                 "give this run another label=NAME")
            time.sleep(0.2)
    if descriptor >= 0:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "job": job, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with contextlib.suppress(OSError):          # A full disk must not keep a run from starting.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _read(folder: Path) -> dict[str, tp.Any]:
    try:
        found = json.loads((folder / LOCK).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _open(folder: Path) -> int:
    """Open the lock file; -1 if that is not possible."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return -1
    _descriptors.add(descriptor)
    return descriptor


def _try(descriptor: int) -> bool:
    """Lock the file, and return whether no other process holds it."""
    if fcntl is None or descriptor < 0:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:                     # A file system without locks.
        return True
    return True


def _close_in_child() -> None:
    """Close the descriptors in a forked process, which would otherwise keep the lock after its parent has been killed."""
    for descriptor in list(_descriptors):
        os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
