"""Run Dora in a subprocess, with a Dora folder for each test, and read its results."""
import json
import os
import re
import subprocess
import sys
import typing as tp
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEBUG = ["solver=magnet/debug", "num_threads=2"]


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a job whose Dora folder is `folder / "runs"`. All jobs share the cache of data sets."""
    return {**os.environ, "AUDIOCRAFT_DORA_DIR": str(folder / "runs"), "PYTHONUNBUFFERED": "1"}


def dora(folder: Path, *arguments: str, cwd: Path = ROOT, check: bool = True, python: str = sys.executable,
         **kwargs: tp.Any) -> subprocess.CompletedProcess:
    """Run `dora ARGUMENTS`.

    Raises:
        AssertionError: It failed and `check` is set; shows the end of its output.
    """
    done = subprocess.run([python, "-m", "dora", *arguments], cwd=cwd, env=environment(folder), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400, **kwargs)
    assert not check or done.returncode == 0, done.stdout[-3000:]
    return done


def signature(folder: Path, *overrides: str, cwd: Path = ROOT, package: tuple[str, ...] = ()) -> str:
    out = dora(folder, *package, "info", *overrides, cwd=cwd).stdout
    found = re.search(r"Sheep\((\w+)", out)
    assert found, out[-2000:]
    return found[1]


def history(folder: Path, sig: str) -> list[dict]:
    path = folder / "runs" / "xps" / sig / "history.json"
    return json.loads(path.read_text()) if path.exists() else []


def without_times(epochs: list[dict]) -> list[dict]:
    return [{stage: {key: value for key, value in metrics.items() if key not in ("duration", "rtf")}
             for stage, metrics in epoch.items()} for epoch in epochs]
