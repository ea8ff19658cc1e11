"""Where and with what figures were made."""
from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import typing as tp
from pathlib import Path


def made_with(checkout: Path, packages: tp.Sequence[str]) -> dict[str, tp.Any]:
    """Commit, machine and versions of this very process.

    Args:
        checkout: a folder of the git checkout whose commit counts.
        packages: whose versions to tell.
    """
    import torch
    inside = bool(git(checkout, "ls-files"))        # else an installation in a folder of somebody's repository
    commit = git(checkout, "rev-parse", "HEAD") if inside else None
    changes = git(checkout, "status", "--porcelain", "--untracked-files=no") if inside else None
    return {"commit": commit, "uncommitted_changes": None if changes is None else bool(changes),
            "measured_on": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "python": platform.python_version(), **{name: version(name) for name in packages}}


def cpu_name() -> str:
    """The processor's name as Linux has it, else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def version(package: str) -> tp.Optional[str]:
    """Version of an installed distribution; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git(folder: Path, *arguments: str) -> tp.Optional[str]:
    """What git says in `folder`; None outside of a checkout, or without git."""
    try:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
