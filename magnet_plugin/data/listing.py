"""What a user brings: files below a folder or rows of a CSV, each with its caption and facts."""
from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
OTHER_AUDIO = (".m4a", ".aac", ".wma", ".opus", ".aiff", ".aif", ".mp4", ".webm")
SPLIT_NAMES = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid",
               "dev": "valid", "evaluate": "evaluate", "eval": "evaluate", "test": "evaluate", "generate": "generate"}
#: What AudioCraft's music data set insists on finding in the JSON of a clip; None where nothing is known.
FACTS = ("title", "artist", "key", "bpm", "genre", "moods", "keywords", "description", "name", "instrument")
LISTS = ("moods", "keywords")


@dataclass
class Item:
    """An audio file: `name` is its path below the folder that was scanned; `split` where the user chose one."""

    path: Path
    name: str
    facts: dict[str, Any]
    split: str | None = None
    complaint: str | None = None


def read_facts(path: Path) -> tuple[dict[str, Any], str | None]:
    """What stands beside an audio file: a JSON, or a text file with the caption; and what is wrong with it."""
    sibling = path.with_suffix(".json")
    facts: dict[str, Any] = {}
    complaint = None
    if sibling.exists():
        try:
            content = json.loads(sibling.read_text(encoding="utf-8-sig"))
            facts = content if isinstance(content, dict) else {}
            complaint = None if isinstance(content, dict) else f"{sibling}: not a JSON object"
        except (OSError, ValueError) as error:
            complaint = f"{sibling}: {error}"
    text = path.with_suffix(".txt")
    if not facts.get("description") and text.exists():
        facts["description"] = " ".join(text.read_text(encoding="utf-8-sig", errors="replace").split())
    return facts, complaint


def complete(facts: dict[str, Any]) -> dict[str, Any]:
    """All keys that AudioCraft asks for, and whatever else there is."""
    full: dict[str, Any] = {**dict.fromkeys(FACTS), **facts}
    for key in LISTS:
        if isinstance(full[key], str):
            full[key] = [word.strip() for word in full[key].split(",") if word.strip()]
    if not has_caption(full):
        full["description"] = None
    return full


def has_caption(facts: dict[str, Any]) -> bool:
    """Whether there is a description: a text, or (for sounds) a list of texts."""
    text = facts.get("description")
    texts = text if isinstance(text, list) else [text]
    return any(isinstance(t, str) and t.strip() not in ("", "None") for t in texts)


def list_folder(folder: Path, leave_out: Path) -> tuple[list[Item], list[str]]:
    """Audio below a folder, sorted by name, and the files of formats that AudioCraft cannot be given.

    Args:
        leave_out: a folder whose files do not count, as the output of an earlier scan.
    """
    items, refused = [], []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(root, f).resolve() != leave_out)
        for file in sorted(files):
            path = Path(root, file)
            name = path.relative_to(folder).as_posix()
            if file.startswith("."):
                continue   # what some systems leave beside every file has audio endings too
            if path.suffix.lower() in ENDINGS:
                facts, complaint = read_facts(path)
                items.append(Item(path.absolute(), name, facts, complaint=complaint))
            elif path.suffix.lower() in OTHER_AUDIO:
                refused.append(f"{path}: convert it to one of {' '.join(ENDINGS)}")
    return sorted(items, key=lambda item: item.name), sorted(refused)


def list_csv(table: Path) -> tuple[list[Item], list[str]]:
    """Rows of a CSV with the columns `path` and, if wanted, `description`, `split` and AudioCraft's others.

    Paths are relative to the folder of the CSV. Empty cells count as not given; what a row does not give is looked
    for beside the audio file.

    Raises:
        ValueError: there is no column `path`, or a row names an unknown split.
    """
    items, refused, seen = [], [], set[Path]()
    for number, row in read_rows(table):
        given = {key: value.strip() for key, value in row.items() if key and isinstance(value, str) and value.strip()}
        written = Path(given.pop("path", ""))
        path = (table.parent / written).absolute()
        word = given.pop("split", None)
        split = SPLIT_NAMES.get(word.lower()) if word else None
        if word and split is None:
            raise ValueError(f"{table}, row {number}: unknown split '{word}': use one of {', '.join(SPLIT_NAMES)}.")
        if path in seen or path.suffix.lower() not in ENDINGS:
            why = "named twice" if path in seen else f"not one of {' '.join(ENDINGS)}"
            refused.append(f"{table}, row {number}: {written}: {why}")
            continue
        seen.add(path)
        facts, complaint = read_facts(path)
        name = written.name if written.is_absolute() or ".." in written.parts else written.as_posix()
        items.append(Item(path, name, {**facts, **numbers(given)}, split, complaint))
    return items, refused


def read_rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row.

    Raises:
        ValueError: there is no column `path`.
    """
    with open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names = [name.strip().lower() for name in reader.fieldnames or []]
        if "path" not in names:
            raise ValueError(f"{table} has the columns {names}: it needs `path`, and `description` for captions.")
        reader.fieldnames = names
        for row in reader:
            yield reader.line_num, row


def numbers(cells: dict[str, str]) -> dict[str, Any]:
    """The cells of a row, the tempo as a number where it is one."""
    values: dict[str, Any] = dict(cells)
    with suppress(KeyError, ValueError):
        values["bpm"] = float(values["bpm"])
    return values
