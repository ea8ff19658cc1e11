"""AudioCraft's manifests (`data.jsonl.gz` in a folder): written and read without AudioCraft."""
from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MANIFEST_NAME = "data.jsonl.gz"
Meta = dict[str, Any]


def entry(path: Path, duration: float, sample_rate: int, amplitude: float | None = None) -> Meta:
    """One line of a manifest, as AudioCraft's `AudioMeta`: duration in seconds, amplitude is the highest peak.

    AudioCraft opens `path` as it stands, so it is made absolute; it reads the facts of a clip from
    `path.with_suffix('.json')`. Its `info_path` is for archives only and stays empty.
    """
    return {"path": str(path.absolute()), "duration": duration, "sample_rate": sample_rate,
            "amplitude": amplitude, "weight": None, "info_path": None}


def write_manifest(folder: Path, entries: Iterable[Meta]) -> Path:
    """Writes `folder/data.jsonl.gz` and returns `folder`, which is what `datasource.train` and its kin want."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in entries)
    (folder / MANIFEST_NAME).write_bytes(gzip.compress(text.encode(), 6, mtime=0))
    return folder


def read_manifest(folder: Path) -> list[Meta]:
    """Lines of `folder/data.jsonl.gz` or, where that is missing, of `folder/data.jsonl`.

    Raises:
        ValueError: there is neither, or a line is no JSON.
    """
    for name in (MANIFEST_NAME, "data.jsonl"):
        path = Path(folder) / name
        if path.exists():
            raw = path.read_bytes()
            text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode()
            try:
                return [json.loads(line) for line in text.splitlines() if line.strip()]
            except ValueError as error:
                raise ValueError(f"{path} is damaged ({error}): make the manifest again.") from error
    raise ValueError(f"No {MANIFEST_NAME} in {folder}: set `datasource.*` to a manifest folder, "
                     "as `magnet data scan` or `magnet data folk` makes them.")


def draw_splits(groups: Sequence[str], splits: Mapping[str, float], seed: int) -> dict[str, str]:
    """A split for each group, by a hash of its name: adding files does not move others.

    A split that the draw left empty gets one group of the largest, as long as there are enough.
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
