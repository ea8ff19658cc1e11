"""AudioCraft's manifests (`data.jsonl.gz` in a folder): written and read without AudioCraft."""
from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
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
