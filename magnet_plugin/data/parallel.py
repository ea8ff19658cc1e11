"""A map over processes, in order, with a progress bar.

The processes are fresh interpreters that load this package's light modules alone. `multiprocessing` would load the
caller's main module again in each of them, which for a training script means torch and AudioCraft, and fails for a
script without a `__main__` guard.
"""
from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
ROOT = Path(__file__).resolve().parents[2]


def default_jobs() -> int:
    """Number of cores that this process may use (SLURM and containers give fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


class Worker:
    """An interpreter that applies functions to lists sent to it through a pipe."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})

    def __call__(self, function: Callable[[A], B], items: Sequence[A]) -> list[B]:
        """`[function(item) for item in items]`; errors are raised here as they were raised there."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            pickle.dump((function, items), self.process.stdin)
            self.process.stdin.flush()
            results, error = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError) as lost:
            raise RuntimeError("A worker process ended early (out of memory?): lower `jobs`.") from lost
        if error is not None:
            raise error
        return results

    def close(self) -> None:
        """Ends the interpreter."""
        self.process.kill()
        self.process.communicate()


def serve() -> None:
    """The loop of a worker: ends when its standard input does, so no worker outlives its caller."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)   # whatever is printed must not mix with the replies
    while True:
        try:
            function, items = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        reply: tuple[list[Any], Exception | None]
        try:
            reply = [function(item) for item in items], None
        except Exception as error:  # noqa: BLE001 - it is raised again where the work was asked for
            reply = [], error
        pickle.dump(reply, replies)
        replies.flush()


def parallel_map(function: Callable[[A], B], items: Sequence[A], jobs: int | None = None,
                 title: str = "", progress: bool = True) -> list[B]:
    """`[function(item) for item in items]`, over `jobs` processes (None: all cores; 1: in this process).

    `function` stands at the top of an importable module, and what it takes and gives can be pickled.

    Raises:
        RuntimeError: a worker process died.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]
    jobs = min(jobs or default_jobs(), max(1, len(items)))
    size = max(1, min(16, len(items) // (4 * jobs)))
    chunks = [items[i:i + size] for i in range(0, len(items), size)]
    with tqdm(total=len(items), desc=title, disable=not progress, mininterval=0.5) as bar:
        if jobs == 1:
            results = []
            for item in items:
                results.append(function(item))
                bar.update()
            return results
        own, workers = threading.local(), list[Worker]()

        def work(chunk: Sequence[A]) -> list[B]:
            if not hasattr(own, "worker"):
                own.worker = Worker()
                workers.append(own.worker)
            part: list[B] = own.worker(function, chunk)
            bar.update(len(chunk))
            return part

        pool = ThreadPoolExecutor(jobs)
        try:
            return [result for part in pool.map(work, chunks) for result in part]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.close()
