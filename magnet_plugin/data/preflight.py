"""Checks of the data before training: problems that would stop a run later, or silently make it worse."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from .listing import has_caption
from .manifests import SPLITS, Meta, read_manifest
from .report import printable
from .sound_files import probe_file

PADDING_LIMIT = 0.05    # acceptable share of padding in a batch
OPENED = 200            # files per split that are opened, spread over the manifest
TOLERANCE = 0.1         # seconds by which a file may be shorter than its manifest says; decoders differ for mp3


def check_datasource(datasource: Mapping[str, object], stage: str | None = None) -> None:
    """Check that the config names a manifest folder for each split that the run needs.

    Args:
        datasource: section `datasource` of the config: split name to manifest folder or None.
        stage: `execute_only`, if set; only this split is needed then.
    Raises:
        ValueError: a folder is missing.
    """
    missing = [name for name in ([stage] if stage else SPLITS) if not datasource.get(name)]
    if missing:
        settings = " ".join(f"datasource.{name}=FOLDER" for name in missing)
        raise ValueError(f"no data: set {settings} (manifest folders, as `magnet data scan` writes them), dset=audio/scan "
                         "datasource.scan=FOLDER (its whole output folder) or dset=audio/NAME")


def preflight(manifest_folders: Mapping[str, Path], segment_duration: float, batch_size: int, sample_rate: int,
              min_segment_ratio: float = 0.5, captions: bool = True, channels: int = 1) -> list[str]:
    """Find problems in the data of a training run.

    Args:
        manifest_folders: split name to the folder with its `data.jsonl.gz`.
        segment_duration: `dataset.segment_duration`, in seconds.
        batch_size: `dataset.batch_size`, over all GPUs.
        sample_rate: `sample_rate` of the model, in Hz.
        min_segment_ratio: `dataset.min_segment_ratio`. AudioCraft starts a crop at any point that leaves at least this
            share of a segment, and pads the rest.
        captions: whether the model is conditioned on descriptions.
        channels: `channels` of the model.
    Returns:
        One message per problem, each with the setting to change; empty if there are none.
    """
    problems: list[str] = []
    paths: dict[str, set[str]] = {}
    for name, folder in manifest_folders.items():
        try:
            metas = read_manifest(Path(folder))
        except ValueError as error:
            problems.append(f"{name}: `datasource.{name}`: {error}")
            continue
        if not metas:
            problems.append(f"{name}: the manifest in {folder} is empty; set `datasource.{name}` to another folder")
            continue
        paths[name] = {meta["path"] for meta in metas}
        problems += [f"{name}: {text}" for text in (
            *check_files(metas, name, channels), *check_sizes(metas, name, segment_duration, batch_size, min_segment_ratio),
            *check_rates(metas, sample_rate), *(check_captions(metas) if captions else ()))]
    for name in paths.keys() - {"train"} if "train" in paths else ():
        shared = paths["train"] & paths[name]
        if shared:
            problems.append(f"{name}: {len(shared)} of its {len(paths[name])} files are in train, too; set "
                            f"`datasource.{name}` to a folder with other files")
    return problems


def some(names: Sequence[str], most: int = 3) -> str:
    """Join the first `most` names and the number of the others."""
    return ", ".join(map(printable, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_files(metas: Sequence[Meta], name: str, channels: int) -> list[str]:
    """Find files that do not exist and, in a sample of `OPENED`, those that cannot be read or do not fit the run."""
    problems, bad, mono, changed = [], [], [], []
    paths = [meta["path"] for meta in metas]
    there = [path for path in paths if Path(path).exists()]
    missing = sorted(set(paths) - set(there))
    if missing:
        problems.append(f"{len(missing)} of {len(metas)} files are missing ({some(missing)}); make the manifest "
                        f"again, or set `datasource.{name}` to another folder")
    opened = there[::max(1, len(there) // OPENED)]
    stated = {meta["path"]: float(meta["duration"]) for meta in metas}
    for path in opened:
        found = probe_file(Path(path))
        if isinstance(found, str):
            bad.append(path)
            continue
        if found.channels < channels:
            mono.append(path)
        if stated[path] > found.seconds + TOLERANCE:
            changed.append(f"{path}: {found.seconds:.2f} s and not {stated[path]:.2f} s")
    if bad:
        problems.append(f"{len(bad)} files cannot be read ({some(bad)}); repair or remove them and make the manifest of "
                        f"`datasource.{name}` again")
    if changed:
        problems.append(f"{len(changed)} of {len(opened)} files are shorter than their manifest says ({some(changed)}); "
                        f"crops behind their end cannot be read; make the manifest of `datasource.{name}` again")
    if mono:
        problems.append(f"{len(mono)} of {len(opened)} opened files are mono ({some(mono)}), so that both channels of the "
                        f"model get the same sound; set `datasource.{name}` to stereo files, or train a mono model")
    return problems


def padding_share(duration: float, segment: float, min_segment_ratio: float) -> float:
    """Compute the expected share of padding in a crop whose start is uniform in [0, duration - ratio * segment]."""
    seek = max(0.0, duration - min_segment_ratio * segment)
    kept = min(segment, duration)
    if seek > 0:
        free = max(0.0, min(seek, duration - segment))   # starts with a whole segment left
        tail = seek - free                               # later starts, with less and less left
        kept = (free * kept + tail * (min(segment, duration - free) + duration - seek) / 2) / seek
    return 1 - kept / segment


def check_sizes(metas: Sequence[Meta], name: str, segment: float, batch_size: int, ratio: float) -> list[str]:
    """Check for too few clips for a batch and for too much padding."""
    problems = []
    durations = [float(meta["duration"]) for meta in metas]
    if len(metas) < batch_size:
        problems.append(f"{len(metas)} clips are fewer than a batch of {batch_size}, so batches repeat clips; lower "
                        f"`dataset.batch_size` or add clips to `datasource.{name}`")
    padding = sum(padding_share(duration, segment, ratio) for duration in durations) / len(durations)
    if padding <= PADDING_LIMIT:
        return problems
    short = sum(duration < segment for duration in durations)
    text = (f"{padding:.0%} of each batch is padding ({short} of {len(metas)} clips are shorter than "
            f"`dataset.segment_duration`={segment:g} s; median {median(durations):.1f} s); ")
    if short > len(metas) * PADDING_LIMIT:
        fitting = sorted(durations)[len(durations) // 20]
        text += f"lower `dataset.segment_duration` to {fitting:.1f} or use longer clips"
    else:
        text += f"raise `dataset.min_segment_ratio` from {ratio:g} to 1, so that crops end within the clip"
    return [*problems, text]


def check_rates(metas: Sequence[Meta], sample_rate: int) -> list[str]:
    """Find files with a lower sample rate than the model's, which leaves the upper part of the spectrum empty."""
    low = [meta["path"] for meta in metas if meta.get("sample_rate", sample_rate) < sample_rate]
    if not low:
        return []
    text = f"{len(low)} of {len(metas)} files have a lower rate than `sample_rate`={sample_rate} Hz ({some(low)}) and lack "
    return [text + "high frequencies; use a model with a lower sample rate, or other files"]


def check_captions(metas: Sequence[Meta]) -> list[str]:
    """Find clips for which AudioCraft will find no description."""
    missing = []
    for meta in metas:
        try:
            metadata = json.loads(Path(meta["path"]).with_suffix(".json").read_text(encoding="utf-8"))
            found = isinstance(metadata, dict) and has_caption(metadata)
        except (OSError, ValueError):
            found = False
        if not found:
            missing.append(meta["path"])
    if not missing:
        return []
    text = f"{len(missing)} of {len(metas)} clips have no description ({some(missing)}); "
    return [text + "add captions and run `magnet data scan` again, or set `conditioner=none`"]
