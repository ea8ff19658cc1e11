"""Measure calls in alternation. The speed of a machine drifts; ratios of times within one round hardly do."""
from __future__ import annotations

import gc
import statistics
import threading
import time
import typing as tp
from pathlib import Path

import torch

Run = tp.Callable[[], tp.Any]
Log = tp.Callable[[str], None]


def silent(text: str) -> None:
    """Discard a progress message."""


def measure_in_turn(runs: dict[str, Run], rounds: int, device: torch.device, log: Log = silent
                    ) -> dict[str, dict[str, tp.Any]]:
    """Call each of `runs` once as a warm-up, then all of them in turn, `rounds` times.

    Args:
        runs: callables by name. One that raises is skipped in the following rounds.
        rounds: number of measured calls of each, at least 1.
        device: synchronized before the clock is read.
        log: receives progress messages.
    Returns:
        For each name, either `first` (seconds of the first call, including one-time setup), `seconds` (one value per
        round) and `peak_mib` (memory above that of the idle process: device memory on CUDA, resident memory otherwise),
        or `error`.
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
        log(f"    round {number + 1} of {rounds}")
        for name, run in runs.items():
            if "error" not in found[name]:
                found[name]["seconds"].append(seconds(run, device))
    return found


def seconds(run: Run, device: torch.device) -> float:
    """Return the duration of one call."""
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratios(found: dict[str, dict[str, tp.Any]], baseline: str) -> dict[str, tuple[float, float, float]]:
    """Return how many times faster than `baseline` each run is: median, minimum and maximum over the rounds."""
    base = found.get(baseline, {}).get("seconds") or []
    return {name: (statistics.median(shares), min(shares), max(shares))
            for name, entry in found.items() if entry.get("seconds") and base
            for shares in [[b / own for b, own in zip(base, entry["seconds"])]]}


class PeakMemory:
    """Measure the peak memory inside a `with` block above that at its start; `mib` holds it afterwards, in MiB."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.mib = device, 0.0

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = used_memory(self.device)
        else:
            self._before = self._most = used_memory(self.device)
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


def used_memory(device: torch.device) -> int:
    """Return the bytes that are in use: by tensors on CUDA, by this process otherwise."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else resident()


def resident() -> int:
    """Return the resident memory of this process in bytes; 0 if the system does not report it."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * 4096 if path.exists() else 0
