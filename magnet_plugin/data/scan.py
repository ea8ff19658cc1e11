"""A user's own audio: manifests and JSON for it, with splits, and a report of what is wrong with it.

The audio is left alone. AudioCraft looks for the facts of a clip beside the audio file (`path.with_suffix('.json')`;
the manifest's `info_path` is for archives only), so the output folder holds links to the audio with the JSON files
beside them.
"""
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .folders import fresh_folder, read_mark, write_mark
from .listing import ENDINGS, Item, complete, has_caption, list_csv, list_folder
from .manifests import Meta, draw_splits, entry, write_manifest

MARK = "scan.json"
GENERATE_CLIPS = 32
SPLITS: Mapping[str, float] = {"train": 0.9, "valid": 0.05, "evaluate": 0.05}


@dataclass
class Report:
    """What `scan` made and what it met: manifest folder, number of files and seconds of each split, and complaints."""

    folders: dict[str, Path] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    missing_captions: list[str] = field(default_factory=list)
    too_short: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def summary(self, most: int = 5) -> str:
        """The report as text; of each list of complaints the first `most`."""
        lines = [f"{name:9} {self.counts[name]:6d} files {self.seconds[name] / 60:8.1f} min  datasource.{name}={folder}"
                 for name, folder in self.folders.items()]
        for title, names in (
                ("could not be read and are left out", self.unreadable),
                ("are left out", self.refused),
                ("are shorter than the shortest allowed and are left out", self.too_short),
                ("have no caption: give a CSV column `description`, or a .json or .txt of the same name",
                 self.missing_captions),
                ("need a look", self.complaints)):
            if names:
                lines.append(f"{len(names)} {title}:")
                lines += [f"  {name}" for name in names[:most]]
                lines += [f"  ... and {len(names) - most} more"] if len(names) > most else []
        return "\n".join(lines)


def probe(item: Item) -> tuple[float, int] | str:
    """Duration in seconds and sample rate of an audio file, or what is wrong with it."""
    import soundfile  # type: ignore[import-untyped]
    try:
        with soundfile.SoundFile(str(item.path)) as file:
            duration, rate = file.frames / file.samplerate, file.samplerate
            if len(file.read(1024)) == 0:
                return f"{item.path}: holds no sound"
    except (RuntimeError, OSError) as error:
        return f"{item.path}: {error}" if item.path.exists() else f"{item.path}: not there"
    return duration, rate


def link_names(items: Sequence[Item]) -> list[PurePosixPath]:
    """A path for each file whose JSON is its own: of `a.wav` and `a.mp3` the second becomes `a_mp3.mp3`, say."""
    taken: set[str] = set()
    names = []
    for item in items:
        name = PurePosixPath(item.name)
        stem, count = name.with_suffix(""), 1
        while str(stem).lower() in taken:
            stem = name.with_name(f"{name.stem}_{name.suffix[1:]}{'' if count == 1 else count}")
            count += 1
        taken.add(str(stem).lower())
        # AudioCraft chooses its reader by the ending and knows only those in lower case.
        names.append(stem.with_name(stem.name + name.suffix.lower()))
    return names


def link(source: Path, target: Path) -> None:
    """Makes `target` stand for `source`: a link, or a copy where links cannot be made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check(source: Path, out: Path, splits: Mapping[str, float]) -> tuple[list[Item], list[str]]:
    """Lists what `source` holds.

    Raises:
        ValueError: a setting makes no sense.
    """
    if not splits or min(splits.values()) <= 0 or "generate" in splits:
        raise ValueError(f"`splits`={dict(splits)}: give each a share above 0 (`generate` is made of the last one).")
    if not source.exists():
        raise ValueError(f"{source} does not exist: name a folder of audio or a CSV.")
    if source.is_dir() and out in (source, *source.parents):
        raise ValueError(f"`out`={out} holds the audio folder {source}: choose another `out`.")
    read_mark(out, MARK)
    return list_folder(source, out) if source.is_dir() else list_csv(source)


def scan(folder_or_csv: Path, out: Path, splits: Mapping[str, float] = SPLITS, seed: int = 0,
         min_duration: float | None = None, group_by_folder: bool = False, progress: bool = True) -> Report:
    """Makes AudioCraft's manifests of a user's audio in `out`, in place of what an earlier scan made there.

    Captions and other facts come from the CSV, else from a .json, else (captions) from a .txt beside the audio.

    Args:
        splits: name to share, relative to their sum; a CSV's own column `split` goes before.
        min_duration: in seconds; shorter files are left out and reported.
        group_by_folder: keeps the files of one folder (an album, a session) in one split.

    Raises:
        ValueError: no file can be used, or a setting makes no sense.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]
    source, out = Path(folder_or_csv).expanduser().absolute(), Path(out).expanduser().resolve()
    items, refused = check(source, out, splits)
    report = Report(refused=refused)
    with ThreadPoolExecutor(8) as pool:
        probes = list(tqdm(pool.map(probe, items), "reading", len(items), disable=not progress, mininterval=0.5))
    good: list[tuple[Item, float, int]] = []
    for item, result in zip(items, probes, strict=True):
        if isinstance(result, str):
            report.unreadable.append(result)
        elif min_duration is not None and result[0] < min_duration:
            report.too_short.append(f"{item.path}: {result[0]:.2f} s")
        else:
            good.append((item, *result))
    if not good:
        raise ValueError(f"No usable audio in {source}: looked for {' '.join(ENDINGS)}; {len(report.unreadable)} could "
                         f"not be read, {len(report.too_short)} were too short.\n{report.summary()}")
    groups = [str(PurePosixPath(item.name).parent) if group_by_folder else item.name for item, _, _ in good]
    chosen = draw_splits([g for g, (item, _, _) in zip(groups, good, strict=True) if not item.split], splits, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with fresh_folder(out) as folder:
        lines = [(item.split or chosen[group], line) for group, (item, _, _), line
                 in zip(groups, good, write_files(folder, out, good, report), strict=True)]
        write_splits(folder, out, lines, splits, report)
        write_mark(folder, MARK, out, {"source": str(source), "seed": seed, "splits": dict(splits)})
    return report


def write_files(folder: Path, out: Path, good: Sequence[tuple[Item, float, int]], report: Report) -> list[Meta]:
    """Links the audio and writes the JSON beside it; gives a manifest line for each file."""
    lines = []
    for (item, duration, rate), name in zip(good, link_names([item for item, _, _ in good]), strict=True):
        target = folder / "audio" / name
        link(item.path, target)
        facts = complete({"name": PurePosixPath(item.name).stem, **item.facts})
        target.with_suffix(".json").write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
        if not has_caption(facts):
            report.missing_captions.append(str(item.path))
        if item.complaint:
            report.complaints.append(item.complaint)
        lines.append(entry(out / "audio" / name, duration, rate))
    return lines


def write_splits(folder: Path, out: Path, lines: Sequence[tuple[str, Meta]], splits: Mapping[str, float],
                 report: Report) -> None:
    """Writes a manifest for each split that has files, and `generate` from the last one where the user named none."""
    names = [*splits, *sorted({name for name, _ in lines} - set(splits))]
    parts = {name: [line for split, line in lines if split == name] for name in names}
    last = next((parts[name] for name in reversed(list(splits)) if parts[name]), [])
    parts.setdefault("generate", last[:GENERATE_CLIPS])
    for name, part in parts.items():
        if not part:
            report.complaints.append(f"split {name} is empty: add files, or give `datasource.{name}` another folder")
            continue
        write_manifest(folder / "egs" / name, part)
        report.folders[name] = out / "egs" / name
        report.counts[name], report.seconds[name] = len(part), sum(line["duration"] for line in part)
