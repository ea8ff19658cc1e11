"""Manifests of your own audio, with splits and captions, and a report of the files that need attention.

The audio itself is not changed. AudioCraft reads the metadata of a clip from the JSON file next to the audio, so the
output folder contains links to the audio files with JSON files next to the links:

    OUT/audio/…                                      links and JSON files
    OUT/egs/{train,valid,evaluate,generate}/         manifests, for `datasource.train` etc.
    OUT/scan.json                                    the arguments, written last
"""
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .captions import caption_from_name
from .folders import read_marker, staging_folder, write_marker
from .listing import AUDIO_SUFFIXES, CAPTION_SOURCE, Item, fill_metadata, has_caption, list_csv, list_folder
from .manifests import GENERATE_CLIPS, Meta, check_shares, draw_splits, entry, write_manifest
from .report import Report
from .sound_files import probe_file

MARKER = "scan.json"
SCAN_SHARES: Mapping[str, float] = {"train": 0.9, "valid": 0.05, "evaluate": 0.05}


@dataclass
class Readable:
    """An audio file that can be used, its duration in seconds and its sample rate in Hz."""

    item: Item
    duration: float
    sample_rate: int


def probe(item: Item) -> Readable | str:
    """Open an audio file and read its beginning and its end; return what is wrong with it if that fails."""
    found = probe_file(item.path)
    return found if isinstance(found, str) else Readable(item, found.seconds, found.sample_rate)


def probe_all(items: Sequence[Item], min_duration: float | None, report: Report, progress: bool) -> list[Readable]:
    """Open all files; return those that can be used and add the others to the report."""
    from tqdm import tqdm  # type: ignore[import-untyped]
    with ThreadPoolExecutor(8) as pool:
        probes = list(tqdm(pool.map(probe, items), "reading", len(items), disable=not progress, mininterval=0.5))
    files: list[Readable] = []
    for result in probes:
        if isinstance(result, str):
            report.unreadable.append(result)
        elif min_duration is not None and result.duration < min_duration:
            report.too_short.append(f"{result.item.path}: {result.duration:.2f} s")
        else:
            files.append(result)
    return files


def link_names(items: Sequence[Item]) -> list[PurePosixPath]:
    """Choose a relative path for each link, so that no two share a JSON file: `a.mp3` next to `a.wav` gets `a_mp3.mp3`."""
    taken: set[str] = set()
    names = []
    for item in items:
        name = PurePosixPath(item.name)
        stem, count = name.with_suffix(""), 1
        while str(stem).lower() in taken:
            stem = name.with_name(f"{name.stem}_{name.suffix[1:]}{'' if count == 1 else count}")
            count += 1
        taken.add(str(stem).lower())
        # AudioCraft chooses its reader by the suffix and only knows lower case.
        names.append(stem.with_name(stem.name + name.suffix.lower()))
    return names


def link(source: Path, target: Path) -> None:
    """Create a symbolic link at `target`, or a copy if the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(source, target)
    except OSError:
        shutil.copyfile(source, target)


def list_source(source: Path, out: Path, splits: Mapping[str, float]) -> tuple[list[Item], list[str]]:
    """List the audio files of `source` and the messages about skipped ones, after checking the arguments of `scan`.

    Raises:
        ValueError: an argument is invalid.
    """
    check_shares(splits)
    if not source.exists():
        raise ValueError(f"{source} does not exist; give a folder of audio or a CSV file")
    if source.is_dir() and out in (source, *source.parents):
        raise ValueError(f"out={out} contains the audio folder {source}; choose another output folder")
    read_marker(out, MARKER)
    return list_folder(source, out) if source.is_dir() else list_csv(source)


def scan(folder_or_csv: Path, out: Path, splits: Mapping[str, float] = SCAN_SHARES, seed: int = 0,
         min_duration: float | None = None, group_by_folder: bool = False, progress: bool = True,
         name_captions: bool = True) -> Report:
    """Write AudioCraft manifests of your audio to `out`, replacing those of an earlier scan.

    Metadata comes from the CSV, then from a .json file next to the audio, then (captions) from a .txt file, and at last
    from the names of folder and file.

    Args:
        folder_or_csv: folder of audio files, or a CSV table (see `listing.list_csv`).
        out: output folder; new, or written by an earlier scan.
        splits: split name to share, relative to their sum. The column `split` of a CSV takes precedence.
        seed: seed of the draw of splits.
        min_duration: skip files shorter than this many seconds.
        group_by_folder: put all files of a folder (an album, a session) into the same split.
        progress: show a progress bar.
        name_captions: make missing captions from the names of folders and files.
    Raises:
        ValueError: an argument is invalid, or no file can be used.
    """
    source, out = Path(folder_or_csv).expanduser().absolute(), Path(out).expanduser().resolve()
    items, skipped = list_source(source, out, splits)
    report = Report(out, skipped=skipped)
    files = probe_all(items, min_duration, report, progress)
    if not files:
        raise ValueError(f"{source} has no audio file that can be used: {len(report.unreadable)} unreadable, "
                         f"{len(report.too_short)} too short; give a folder or a CSV file with {', '.join(AUDIO_SUFFIXES)} "
                         f"files\n{report.summary()}")
    groups = [str(PurePosixPath(file.item.name).parent) if group_by_folder else file.item.name for file in files]
    drawn = draw_splits([g for g, file in zip(groups, files, strict=True) if not file.item.split], splits, seed)
    chosen = [file.item.split or drawn[group] for group, file in zip(groups, files, strict=True)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(out) as folder:
        lines = write_audio(folder, out, files, report, name_captions)
        write_splits(folder, out, list(zip(chosen, lines, strict=True)), splits, report)
        write_marker(folder, MARKER, out, {"source": str(source), "seed": seed, "splits": dict(splits)})
    return report


def write_audio(folder: Path, out: Path, files: Sequence[Readable], report: Report, name_captions: bool) -> list[Meta]:
    """Link the audio into `folder`, write a JSON file next to each link, and return a manifest line for each file.

    Args:
        folder: staging folder.
        out: final folder, which the manifest lines refer to.
        files: files to link.
        report: receives missing captions, those made from names, and warnings.
        name_captions: as in `scan`.
    """
    lines = []
    for file, name in zip(files, link_names([file.item for file in files]), strict=True):
        target = folder / "audio" / name
        link(file.item.path, target)
        metadata = fill_metadata({"name": PurePosixPath(file.item.name).stem, **file.item.metadata})
        caption = caption_from_name(file.item.name) if name_captions and not has_caption(metadata) else None
        if caption:
            metadata |= {"description": caption, CAPTION_SOURCE: "name"}
            report.name_captions.append(f"{file.item.path}: {caption}")
        target.with_suffix(".json").write_text(json.dumps(metadata, ensure_ascii=False) + "\n", encoding="utf-8",
                                                    errors="replace")          # half of a surrogate pair is no text
        if not has_caption(metadata):
            report.missing_captions.append(str(file.item.path))
        if file.item.warning:
            report.warnings.append(file.item.warning)
        lines.append(entry(out / "audio" / name, file.duration, file.sample_rate))
    return lines


def write_splits(folder: Path, out: Path, lines: Sequence[tuple[str, Meta]], splits: Mapping[str, float],
                 report: Report) -> None:
    """Write a manifest for each split that has files, and one for `generate` unless the user chose its files.

    Args:
        folder: staging folder.
        out: final folder.
        lines: split and manifest line of each file.
        splits: as in `scan`; the first clips of the last one that has files make up `generate`.
        report: receives folders, counts, seconds and warnings.
    """
    names = [*splits, *sorted({name for name, _ in lines} - set(splits))]
    parts = {name: [line for split, line in lines if split == name] for name in names}
    last = next((parts[name] for name in reversed(list(splits)) if parts[name]), [])
    parts.setdefault("generate", last[:GENERATE_CLIPS])
    for name, part in parts.items():
        if not part:
            report.warnings.append(f"split {name} is empty; add files, or give another folder as `datasource.{name}`")
            continue
        write_manifest(folder / "egs" / name, part)
        report.folders[name] = out / "egs" / name
        report.counts[name], report.seconds[name] = len(part), sum(line["duration"] for line in part)
