"""Times of things that take turns, as ratios: a machine's speed drifts, but within a round it hardly does."""
from __future__ import annotations

import gc
import statistics
import threading
import time
import typing as tp
from pathlib import Path

import torch

Run = tp.Callable[[], tp.Any]


def take_turns(runs: dict[str, Run], rounds: int, device: torch.device, say: tp.Callable[[str], None] = print
               ) -> dict[str, dict[str, tp.Any]]:
    """Call each of `runs` once to warm it up, then all of them `rounds` times in turn.

    Args:
        runs: by name. One that raises is left out of the following rounds, and its error told.
        rounds: at least 1.
        device: waited for before a clock is read.
        say: told what is being done.
    Returns:
        By name: `first` (seconds of the first call, with all that is set up in it), `seconds` (one number per round) and
        `peak_mib` (memory above that of the idle process: the device's on CUDA, resident otherwise), or `error`.
    """
    found: dict[str, dict[str, tp.Any]] = {}
    for name, run in runs.items():
        try:
            with PeakMemory(device) as peak:
                first = seconds(run, device)
            found[name] = {"first": first, "seconds": [], "peak_mib": peak.mib}
        except (RuntimeError, NotImplementedError, ValueError, AssertionError) as error:
            found[name] = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:160]}
    for number in range(rounds):
        say(f"    round {number + 1} of {rounds}")
        for name, run in runs.items():
            if "error" not in found[name]:
                found[name]["seconds"].append(seconds(run, device))
    return found


def seconds(run: Run, device: torch.device) -> float:
    """How long one call takes."""
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratios(found: dict[str, dict[str, tp.Any]], against: str) -> dict[str, tuple[float, float, float]]:
    """Time of `against` over the time of each, round by round: median, least and largest. Above 1 is faster than it."""
    base = found.get(against, {}).get("seconds") or []
    return {name: (statistics.median(shares), min(shares), max(shares))
            for name, entry in found.items() if entry.get("seconds") and base
            for shares in [[b / own for b, own in zip(base, entry["seconds"])]]}


class PeakMemory:
    """Most memory used inside of a `with` block above what was there before, in MiB, as `mib`."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.mib = device, 0.0

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            self._before = self._most = resident()
            self._done = threading.Event()
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *_: tp.Any) -> None:
        if self.device.type == "cuda":
            most = torch.cuda.max_memory_allocated(self.device)
        else:
            self._done.set()
            self._watcher.join()
            most = max(self._most, resident())
        self.mib = (most - self._before) / 2 ** 20

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._most = max(self._most, resident())


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * 4096 if path.exists() else 0
