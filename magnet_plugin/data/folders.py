"""Output folders that are either complete or absent: written to a staging folder, then moved into place.

A finished folder holds a marker, a JSON file with the arguments that it was made with.
"""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..environment import cache_dir
from .manifests import read_manifest, write_manifest

OWN_FOLDERS = ("audio", "egs")
STALE_AFTER = 24 * 3600    # seconds after which a staging folder belongs to a process that was killed


def read_marker(out: Path, name: str) -> dict[str, Any] | None:
    """Return the arguments that `out` was made with, or None if it does not exist or is incomplete.

    If the folder was moved since, its manifests, which hold absolute paths, are rewritten.

    Args:
        out: output folder.
        name: file name of the marker, which is written last.
    Raises:
        ValueError: `out` is a file, or a folder that holds other files.
    """
    if not out.is_dir():
        if out.exists():
            raise ValueError(f"out={out} is a file; choose a folder")
        return None
    if not (out / name).exists():
        foreign = sorted(path.name for path in out.iterdir() if path.name not in OWN_FOLDERS)
        if foreign:
            raise ValueError(f"out={out} already holds other files ({foreign[0]}); choose another folder")
        return None
    content = json.loads((out / name).read_text(encoding="utf-8"))
    if content["root"] != str(out):
        for manifest in (out / "egs").iterdir():
            lines = read_manifest(manifest)
            for line in lines:
                line["path"] = str(out / Path(line["path"]).relative_to(content["root"]))
            write_manifest(manifest, lines)
        write_marker(out, name, out, content["arguments"])
    arguments: dict[str, Any] = content["arguments"]
    return arguments


def write_marker(folder: Path, name: str, root: Path, arguments: dict[str, Any]) -> None:
    """Write the marker `name` into `folder`.

    Args:
        folder: where to write it.
        name: file name of the marker.
        root: the folder that the paths in the manifests start with.
        arguments: what the folder was made with.
    """
    content = {"arguments": arguments, "root": str(root)}
    (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold a lock on `out`, so that only one process of this machine writes it at a time.

    On a file system without locks, processes may do the work twice, but none sees an incomplete folder.
    """
    folder = cache_dir("locks")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / hashlib.sha256(str(out).encode()).hexdigest()[:16])
    with suppress(OSError, NotImplementedError):   # the file system has no locks
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def staging_folder(out: Path, keep: str | None = None) -> Iterator[Path]:
    """Yield a new folder next to `out`, and move it to `out`, replacing what is there, if the block succeeds.

    Args:
        out: output folder; its parent exists.
        keep: name of the marker. If `out` has it by then, another process was faster, and its result stays.
    """
    for old in out.parent.glob(f".{out.name}.part-*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > STALE_AFTER:
                shutil.rmtree(old)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.part-", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)   # mkdtemp makes folders private
        if keep is None or not (out / keep).exists():
            if out.exists():
                shutil.rmtree(out)
            os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
