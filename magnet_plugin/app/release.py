"""Export a trained model with its model card."""
from __future__ import annotations

import typing as tp
from pathlib import Path

from ..models import checkpoints, inspection
from ..sweeps.records import Job, read_job
from .model_card import CARD, write_card

#: Files of a release folder that belong to the release.
FILES = (*(str(path) for name in (checkpoints.LM_FILE, checkpoints.CODEC_FILE)
           for path in (Path(name), checkpoints.safetensors_of(Path(name)))), CARD)


class Release(tp.NamedTuple):
    """An export: its folder, its files, and whether the card was written (and not kept)."""
    folder: Path
    files: list[Path]
    new_card: bool


def export_release(source: str, out: Path, half: bool = False, licence: str | None = None) -> Release:
    """Write a release folder (see `checkpoints.export`) and its card.

    Raises:
        ValueError: the source has no weights, or what was written differs from it.
    """
    folder = checkpoints.export(source, out, half=half)
    facts = inspection.inspect(folder)
    cfg = checkpoints.load_package(source, checkpoints.LM_FILE)["xp.cfg"]
    new_card = write_card(folder, facts, job_of(source), cfg, licence)
    return Release(folder, [folder / name for name in FILES if (folder / name).exists()], new_card)


def job_of(source: str) -> Job | None:
    """Return what is recorded about the run that a checkpoint belongs to; None if it is not that of a run."""
    path = checkpoints.resolve(source)
    return read_job(path.parent) if path is not None and path.name == checkpoints.CHECKPOINT else None
