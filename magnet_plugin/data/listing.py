"""Audio files in a folder or in a CSV table, each with its caption and other metadata."""
from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
UNSUPPORTED_SUFFIXES = (".m4a", ".aac", ".wma", ".opus", ".aiff", ".aif", ".mp4", ".webm")
SPLIT_NAMES = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid",
               "dev": "valid", "evaluate": "evaluate", "eval": "evaluate", "test": "evaluate", "generate": "generate"}
#: Fields that AudioCraft's music data set requires in the JSON file of a clip; None stands for unknown.
REQUIRED_FIELDS = ("title", "artist", "key", "bpm", "genre", "moods", "keywords", "description", "name", "instrument")
LIST_FIELDS = ("moods", "keywords")
CAPTION_SOURCE = "caption_from"     # field of a scanned clip: `name` if the caption was made from folder and file names


@dataclass
class Item:
    """An audio file that was found.

    Attributes:
        path: absolute path of the file.
        name: path relative to the scanned folder.
        metadata: what the user says about the file.
        split: split that the user chose, if any.
        warning: what is wrong with its metadata, if anything.
    """

    path: Path
    name: str
    metadata: dict[str, Any]
    split: str | None = None
    warning: str | None = None


def read_sidecar(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read the metadata next to an audio file: a .json file, or the caption in a .txt file.

    Returns:
        The metadata, and a warning if the .json file cannot be used.
    """
    sidecar = path.with_suffix(".json")
    metadata: dict[str, Any] = {}
    warning = None
    if sidecar.exists():
        try:
            content = json.loads(sidecar.read_text(encoding="utf-8-sig"))
            metadata = content if isinstance(content, dict) else {}
            warning = None if isinstance(content, dict) else f"{sidecar}: not a JSON object"
        except (OSError, ValueError, RecursionError) as error:
            warning = f"{sidecar}: {error}"
    text = path.with_suffix(".txt")
    if not metadata.get("description") and text.exists():
        metadata["description"] = " ".join(text.read_text(encoding="utf-8-sig", errors="replace").split())
    return metadata, warning


def fill_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Add the fields that AudioCraft requires as None, and split comma-separated lists; other fields stay."""
    full: dict[str, Any] = {**dict.fromkeys(REQUIRED_FIELDS), **metadata}
    for field in LIST_FIELDS:
        if isinstance(full[field], str):
            full[field] = [word.strip() for word in full[field].split(",") if word.strip()]
    if not has_caption(full):
        full["description"] = None
    return full


def has_caption(metadata: dict[str, Any]) -> bool:
    """Return whether `description` is a non-empty text or, as sound data sets have it, a list with one."""
    text = metadata.get("description")
    texts = text if isinstance(text, list) else [text]
    return any(isinstance(t, str) and t.strip() not in ("", "None") for t in texts)


def list_folder(folder: Path, exclude: Path) -> tuple[list[Item], list[str]]:
    """Find audio files in a folder and its subfolders, following links and ignoring hidden files.

    Args:
        folder: where to look.
        exclude: resolved path of a subfolder to ignore, such as the output of an earlier scan.
    Returns:
        The files, sorted by name, and a message for each audio file in an unsupported format.
    """
    items, skipped = [], []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(root, f).resolve() != exclude)
        for file in sorted(files):
            path = Path(root, file)
            name = path.relative_to(folder).as_posix()
            if file.startswith("."):
                continue   # macOS writes `._NAME.wav` files that are not audio
            if path.suffix.lower() in AUDIO_SUFFIXES:
                metadata, warning = read_sidecar(path)
                items.append(Item(path.absolute(), name, metadata, warning=warning))
            elif path.suffix.lower() in UNSUPPORTED_SUFFIXES:
                skipped.append(f"{path}: convert it to one of {' '.join(AUDIO_SUFFIXES)}")
    return sorted(items, key=lambda item: item.name), sorted(skipped)


def list_csv(table: Path) -> tuple[list[Item], list[str]]:
    """Read a CSV table of audio files.

    The column `path` (relative to the folder of the table) is required; `description`, `split` and the other fields of
    AudioCraft's metadata are optional. Fields that a row leaves empty are read from the files next to the audio.

    Returns:
        The files, in the order of the table, and a message for each row that is skipped.
    Raises:
        ValueError: the column `path` is missing, or a row has an unknown split.
    """
    items, skipped, seen = [], [], set[Path]()
    for number, row in read_rows(table):
        cells = {key: value.strip() for key, value in row.items() if key and isinstance(value, str) and value.strip()}
        written = Path(cells.pop("path", ""))
        path = (table.parent / written).absolute()
        word = cells.pop("split", None)
        split = SPLIT_NAMES.get(word.lower()) if word else None
        if word and split is None:
            raise ValueError(f"{table}, row {number}: unknown split '{word}'; use one of {', '.join(SPLIT_NAMES)}")
        if path in seen or path.suffix.lower() not in AUDIO_SUFFIXES:
            why = "listed twice" if path in seen else f"not one of {' '.join(AUDIO_SUFFIXES)}"
            skipped.append(f"{table}, row {number}: {written}: {why}")
            continue
        seen.add(path)
        metadata, warning = read_sidecar(path)
        name = written.name if written.is_absolute() or ".." in written.parts else written.as_posix()
        items.append(Item(path, name, {**metadata, **parse_tempo(cells)}, split, warning))
    return items, skipped


def read_rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the cells of each row, by lower-case column name.

    Raises:
        ValueError: the file is not text, or the column `path` is missing.
    """
    with open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            names = [name.strip().lower() for name in reader.fieldnames or []]
        except (UnicodeDecodeError, csv.Error):
            raise ValueError(f"{table} is not a text file in UTF-8; give a folder of audio or a CSV file") from None
        if "path" not in names:
            raise ValueError(f"{table} has the columns {', '.join(names)} and no column `path`; add `path`, and "
                             "`description` for captions")
        reader.fieldnames = names
        for row in reader:
            yield reader.line_num, row


def parse_tempo(cells: dict[str, str]) -> dict[str, Any]:
    """Return the cells with `bpm` as a number, if it is one."""
    values: dict[str, Any] = dict(cells)
    with suppress(KeyError, ValueError):
        values["bpm"] = float(values["bpm"])
    return values
