"""An ordered map over worker processes, with a progress bar.

The workers are loky's. Those of `concurrent.futures` and `multiprocessing` import the caller's main module again, which
loads torch and AudioCraft in every worker of a training run and fails in a script without a `__main__` guard; loky's
only import the module of the mapped function.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
IDLE_SECONDS = 30       # an idle worker then exits by itself, even if its caller was killed
MAX_CHUNK = 16          # items sent to a worker at a time


def parallel_map(function: Callable[[A], B], items: Sequence[A], jobs: int | None = None,
                 title: str = "", progress: bool = True) -> list[B]:
    """Compute `[function(item) for item in items]` in parallel.

    Args:
        function: defined at the top level of an importable module; its argument and result can be pickled.
        items: arguments, one call each.
        jobs: number of processes. 1 computes in the calling process; None uses all cores that this process may use
            (CPU affinity and container limits count).
        title: label of the progress bar.
        progress: show the progress bar.
    Raises:
        ChildProcessError: a worker process ended before its work was done.
        Exception: whatever `function` raises.
    """
    import loky
    from tqdm import tqdm  # type: ignore[import-untyped]
    jobs = min(jobs or loky.cpu_count(), max(1, len(items)))
    bar = functools.partial(tqdm, total=len(items), desc=title, disable=not progress, mininterval=0.5)
    if jobs == 1:
        return list(bar(map(function, items)))
    chunk = max(1, min(MAX_CHUNK, len(items) // (4 * jobs)))
    workers = loky.ProcessPoolExecutor(jobs, timeout=IDLE_SECONDS, env={"OMP_NUM_THREADS": "1"})
    try:
        return list(bar(workers.map(function, items, chunksize=chunk)))
    except BrokenExecutor as error:
        raise ChildProcessError(f"{title or 'parallel work'}: one of {jobs} worker processes ended early, probably for lack "
                                "of memory; use fewer processes (--jobs on the command line)") from error
    finally:
        workers.shutdown(kill_workers=True)
