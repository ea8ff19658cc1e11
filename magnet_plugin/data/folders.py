"""Output folders that are either whole or not there: made under another name, then moved into place."""
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

from ..environment import cache_dir
from .manifests import read_manifest, write_manifest

OURS = ("audio", "egs")
LEFTOVER_AGE = 24 * 3600    # seconds


def read_mark(out: Path, mark: str) -> dict[str, Any] | None:
    """The arguments that `out` was made with; None when it is not there, or not whole.

    A set that was moved as a whole gets its manifests written anew, for they hold absolute paths.

    Args:
        mark: name of the file that is written last.
    Raises:
        ValueError: `out` holds something else.
    """
    if not out.is_dir():
        if out.exists():
            raise ValueError(f"{out} is a file: choose a folder for `out`.")
        return None
    if not (out / mark).exists():
        strangers = sorted(path.name for path in out.iterdir() if path.name not in OURS)
        if strangers:
            raise ValueError(f"{out} holds files of something else ({strangers[0]}): choose another `out`.")
        return None
    content = json.loads((out / mark).read_text(encoding="utf-8"))
    if content["root"] != str(out):
        for manifest in (out / "egs").iterdir():
            lines = read_manifest(manifest)
            for line in lines:
                line["path"] = str(out / Path(line["path"]).relative_to(content["root"]))
            write_manifest(manifest, lines)
        write_mark(out, mark, out, content["arguments"])
    arguments: dict[str, Any] = content["arguments"]
    return arguments


def write_mark(folder: Path, mark: str, root: Path, arguments: dict[str, Any]) -> None:
    """Notes the arguments and the folder `root` that the manifests speak of."""
    content = {"arguments": arguments, "root": str(root)}
    (folder / mark).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Lets one process of this machine at a time make `out`; the others wait, and find it made.

    Where files cannot be locked the work may be done twice, and still nobody sees half of it.
    """
    try:
        import fcntl
    except ImportError:   # Windows
        yield
        return
    folder = cache_dir("locks")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / hashlib.sha256(str(out).encode()).hexdigest()[:16], "w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def fresh_folder(out: Path, keep: str | None = None) -> Iterator[Path]:
    """A new folder beside `out` that takes its place, and that of what was there, when the block ends well.

    Args:
        keep: if `out` has a file of this name by then, someone else was faster, and theirs stays.
    """
    for old in out.parent.glob(f".{out.name}.part-*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > LEFTOVER_AGE:   # of a process that was killed
                shutil.rmtree(old)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.part-", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)   # temporary folders are closed to others
        if keep is None or not (out / keep).exists():
            if out.exists():
                shutil.rmtree(out)
            os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
