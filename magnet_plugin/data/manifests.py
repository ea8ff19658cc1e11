"""AudioCraft's manifests (`data.jsonl.gz` in a folder), read and written without importing AudioCraft."""
from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MANIFEST_NAME = "data.jsonl.gz"
SPLITS = ("train", "valid", "evaluate", "generate")     # of AudioCraft's configs: one `datasource` for each
GENERATE_CLIPS = 32     # clips of the last split with a share that make up `generate`
Meta = dict[str, Any]


def entry(path: Path, duration: float, sample_rate: int, amplitude: float | None = None) -> Meta:
    """Build one line of a manifest, with the fields of AudioCraft's `AudioMeta`.

    Args:
        path: audio file. It is made absolute, because AudioCraft opens it as written. AudioCraft reads the metadata of
            the clip from `path.with_suffix('.json')`; the field `info_path` is only used for archives.
        duration: in seconds.
        sample_rate: in Hz.
        amplitude: highest absolute sample, from 0 to 1.
    """
    return {"path": str(path.absolute()), "duration": duration, "sample_rate": sample_rate,
            "amplitude": amplitude, "weight": None, "info_path": None}


def write_manifest(folder: Path, entries: Iterable[Meta]) -> Path:
    """Write `folder/data.jsonl.gz` and return `folder`, which is what `datasource.train` etc. take."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in entries)
    (folder / MANIFEST_NAME).write_bytes(gzip.compress(text.encode(), 6, mtime=0))
    return folder


def read_manifest(folder: Path) -> list[Meta]:
    """Read the lines of `folder/data.jsonl.gz` or, if that does not exist, of `folder/data.jsonl`.

    Raises:
        ValueError: neither exists, or the file is damaged.
    """
    for name in (MANIFEST_NAME, "data.jsonl"):
        path = Path(folder) / name
        if path.exists():
            raw = path.read_bytes()
            try:
                text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode()
                return [read_line(line) for line in text.split("\n") if line.strip()]
            except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, RecursionError) as error:
                raise ValueError(f"{path} is damaged ({error}); make the manifest again") from error
    raise ValueError(f"{folder} contains no {MANIFEST_NAME}; give a manifest folder, such as OUT/egs/train after "
                     "`magnet data scan` or `magnet data folk`")


def read_line(line: str) -> Meta:
    """Read one line of a manifest.

    Raises:
        ValueError: it is no JSON object with a path, or its duration is not a number of seconds.
    """
    meta = json.loads(line)
    if not isinstance(meta, dict) or not isinstance(meta.get("path"), str) or not meta["path"]:
        raise ValueError(f"a line has no `path`: {line[:80]}")
    seconds = meta.get("duration", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ValueError(f"the duration of {meta['path']} is {seconds!r} and not a number of seconds")
    return meta


def check_shares(splits: Mapping[str, float]) -> None:
    """Check the shares of splits.

    Raises:
        ValueError: there are no splits, a share is not above 0, or `generate` has one.
    """
    if not splits or not all(0 < share < math.inf for share in splits.values()) or "generate" in splits:
        raise ValueError(f"splits={dict(splits)} is not valid; give each split a share above 0, and none to `generate`, "
                         "which is taken from the last split")


def draw_splits(groups: Sequence[str], splits: Mapping[str, float], seed: int) -> dict[str, str]:
    """Draw a split for each group from a hash of its name, so that adding groups does not move others.

    A split that would be empty gets one group of the largest split, if that has more than one.

    Args:
        groups: names; duplicates count once.
        splits: split name to share, relative to the sum of the shares.
        seed: another seed gives another draw.
    Returns:
        Group name to split name.
    """
    at = {group: int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8], "big") / 2 ** 64
          for group in sorted(set(groups))}
    chosen: dict[str, str] = {}
    for group, position in at.items():
        edge = 0.0
        for name, share in splits.items():
            edge += share / sum(splits.values())
            chosen[group] = name
            if position < edge:
                break
    for name in splits:
        sizes = {other: [g for g in at if chosen[g] == other] for other in splits}
        largest = max(sizes.values(), key=len)
        if not sizes[name] and len(largest) > 1:
            chosen[max(largest, key=lambda group: at[group])] = name
    return chosen
