"""Where a result was measured: commit, hardware and package versions."""
from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import typing as tp
from pathlib import Path


def made_with(checkout: Path, packages: tp.Sequence[str]) -> dict[str, tp.Any]:
    """Describe the current process: commit, device, number of cores and versions.

    Args:
        checkout: a folder in the git checkout whose commit is recorded.
        packages: names of the distributions whose versions are recorded.
    Returns:
        `commit` and `uncommitted_changes` (None outside of a checkout), `measured_on` (the GPU's or else the CPU's name),
        `cores`, `python`, and the version of each package (None if it is not installed).
    """
    import torch
    tracked = bool(git(checkout, "ls-files"))       # an installed package may lie in somebody else's repository
    commit = git(checkout, "rev-parse", "HEAD") if tracked else None
    changes = git(checkout, "status", "--porcelain", "--untracked-files=no") if tracked else None
    return {"commit": commit, "uncommitted_changes": None if changes is None else bool(changes),
            "measured_on": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "python": platform.python_version(), **{name: version(name) for name in packages}}


def cpu_name() -> str:
    """Return the CPU's model name on Linux, and the machine's architecture elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def version(package: str) -> tp.Optional[str]:
    """Return the version of a distribution, or None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git(folder: Path, *arguments: str) -> tp.Optional[str]:
    """Run git in `folder` and return its output, or None if it fails or is not installed."""
    try:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
