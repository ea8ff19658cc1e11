"""A map over processes, in order, with a progress bar."""
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
import os
import sys
import typing as tp

A = tp.TypeVar("A")
B = tp.TypeVar("B")


def default_jobs() -> int:
    """Number of cores that this process may use (SLURM and containers give fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def parallel_map(function: tp.Callable[[A], B], items: tp.Sequence[A], jobs: tp.Optional[int] = None,
                 title: str = "", progress: bool = True) -> tp.List[B]:
    """`[function(x) for x in items]`, over `jobs` processes (None: all cores; 1: in this process).

    `function` stands at the top of a module and what it takes and gives can be pickled: the processes
    are spawned, not forked, for the caller may hold threads and a GPU.
    """
    from tqdm import tqdm
    jobs = min(jobs or default_jobs(), max(1, len(items)))
    bar = tqdm(total=len(items), desc=title, disable=not progress, file=sys.stderr)
    results: tp.List[B] = []
    with bar:
        if jobs <= 1:
            for item in items:
                results.append(function(item))
                bar.update()
            return results
        chunk = max(1, min(16, len(items) // (4 * jobs)))
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            for result in pool.map(function, items, chunksize=chunk):
                results.append(result)
                bar.update()
    return results
