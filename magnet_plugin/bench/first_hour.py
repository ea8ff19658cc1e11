"""`magnet bench first-hour`: what to learn first on a new GPU, as a list of steps that can be interrupted and resumed.

Each step runs in its own process with a time limit, so that neither a crash nor a slow case costs the steps after it.
"""
from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

from ..environment import PACKAGE
from . import records
from .markdown import markdown
from .measure import Log

LIMIT, TESTS_LIMIT = 180.0, 600.0       # seconds
OUTPUT = 4000                           # characters of a failed step's output that are kept
WIDTH = 300                             # characters of a result in the table
FEW = ("AudioCraft MAGNeT", "fast path", "reference path")
#: Arguments of `decode.Case`. MusicGen needs one step per frame, so it only fits into the limit once.
DECODE: dict[str, dict[str, tp.Any]] = {
    "decode-small-10s-batch1": {"size": "small", "batch": 1, "length": 500, "rounds": 3},
    "decode-small-10s-batch8": {"size": "small", "batch": 8, "length": 500, "rounds": 3, "only": (*FEW, "bfloat16")},
    "decode-small-30s-batch1": {"size": "small", "batch": 1, "length": 1500, "rounds": 3, "only": FEW},
    "decode-medium-10s-batch1": {"size": "medium", "batch": 1, "length": 500, "rounds": 3, "only": FEW},
    "decode-medium-10s-batch8": {"size": "medium", "batch": 8, "length": 500, "rounds": 3, "only": FEW}}
MEASURED = ("profile", *DECODE, "train", "fsdp")


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the plan.

    Attributes:
        name: name of the step and of its JSON file.
        command: what is run; its last line of output is the result as JSON, or else a summary.
        limit: seconds until the step is stopped.
        folder: working directory; None for the current one.
        skip: why the step is not run; empty if it is.
    """
    name: str
    command: tuple[str, ...]
    limit: float = LIMIT
    folder: tp.Optional[Path] = None
    skip: str = ""


def plan(device: str, smoke: bool) -> list[Step]:
    """Return the steps, those that tell most first."""
    magnet, tests = (sys.executable, "-m", "magnet_plugin"), PACKAGE.parent / "tests"
    skip = ("they need a CUDA device" if not device.startswith("cuda") else "not part of --smoke" if smoke else
            "" if tests.is_dir() else f"{tests} does not exist: run this command from a checkout of the repository")
    pytest = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "-rs", str(tests))
    more = ("--device", device, *(["--smoke"] if smoke else []))
    return [Step("doctor", (*magnet, "doctor")), Step("gpu-tests", pytest, TESTS_LIMIT, PACKAGE.parent, skip),
            *(Step(name, (*magnet, "bench", "first-hour", "--step", name, *more)) for name in MEASURED)]


def run(steps: tp.Sequence[Step], folder: Path, log: Log) -> list[dict[str, tp.Any]]:
    """Run the steps one after the other, and write `NAME.json` after each; those that succeeded before are not repeated.

    Returns:
        For each step `step`, `command`, `status` (success, failed, late or skipped), `seconds`, `exit_status`, `result`
        and, unless it succeeded, `output`: the reason or the end of the output.
    """
    found = []
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))     # so that the step ends too
    try:
        for number, step in enumerate(steps, 1):
            path = folder / f"{step.name}.json"
            entry = finished(path, step)
            if entry is None:
                log(f"{step.name} ({number} of {len(steps)}), at most {step.limit:.0f} s")
                entry = run_step(step)
                records.write(entry, path)
                log(f"  {entry['status']}, {entry['seconds']:.1f} s")
            else:
                log(f"{step.name} ({number} of {len(steps)}): already in {path}")
            found.append(entry)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return found


def finished(path: Path, step: Step) -> tp.Optional[dict[str, tp.Any]]:
    """Return what an earlier run of the same command wrote, or None if there is none or it did not succeed."""
    try:
        entry = json.loads(path.read_text())
    except (OSError, ValueError):           # an interrupted run may leave half a file
        return None
    same = isinstance(entry, dict) and entry.get("status") == "success" and entry.get("command") == list(step.command)
    return entry if same else None


def run_step(step: Step) -> dict[str, tp.Any]:
    """Run one step in a new process, and stop it with its children at its limit."""
    entry: dict[str, tp.Any] = {"step": step.name, "command": list(step.command), "status": "skipped", "seconds": 0.0,
                                "exit_status": None, "result": None}
    if step.skip:
        return {**entry, "output": step.skip}
    started = time.perf_counter()
    late = False
    with subprocess.Popen(step.command, cwd=step.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          errors="replace", start_new_session=True) as process:
        try:
            out, errors = process.communicate(timeout=step.limit)
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    entry |= {"seconds": time.perf_counter() - started, "exit_status": process.returncode, "result": read_result(out)}
    skipped = entry["result"].get("skipped")
    entry["status"] = "late" if late else "failed" if process.returncode else "skipped" if skipped else "success"
    if entry["status"] != "success":
        entry["output"] = skipped or (out + errors)[-OUTPUT:]
    return entry


def read_result(out: str) -> dict[str, tp.Any]:
    """Return the JSON object in the last line of the output, or else that line as `summary` and all as `text`."""
    last = (out.strip().splitlines() or [""])[-1].strip()
    try:
        found = json.loads(last)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"summary": last, "text": out}


def summarize(entries: tp.Iterable[dict[str, tp.Any]]) -> str:
    """Return a table of the steps, with what each one found, or the last line of its output."""
    rows = []
    for entry in entries:
        result = entry["result"] or {}
        text = result.get("summary", "")
        if entry["status"] != "success" and ("text" in result or not text):     # not measured: the error comes last
            text = (entry["output"].strip().splitlines() or [""])[-1]
        text = " ".join(text.split()).replace("|", "/")[:WIDTH]
        rows.append([entry["step"], entry["status"], f"{entry['seconds']:.0f}", text])
    return markdown(["step", "status", "seconds", "result"], rows, left=2)
