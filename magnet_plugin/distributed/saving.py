"""Write checkpoints so that neither a lost rank nor a crash of the machine leaves a run without a complete one.

The checkpoint before the last one stays beside it, for the case that the last one cannot be read.
"""
import logging
import shutil
import typing as tp
from pathlib import Path

import flashy
import torch

from ..environment import flush_to_disk

logger = logging.getLogger(__name__)
#: The checkpoint of which the one before it is kept; those of single epochs, and within an epoch, have other names.
KEPT = "checkpoint.th"


def save_checkpoint(state: tp.Any, checkpoint_path: Path, is_sharded: bool = False) -> None:
    """Save a checkpoint as AudioCraft's function of this name does, but only replace the previous one by a file on the disk.

    With shards, no rank replaces its file before those of all ranks are complete. A file `*.tmp.done` marks this moment; if
    the run is stopped after it, `audiocraft.utils.checkpoint.check_sharded_checkpoint` replaces the remaining files.

    Args:
        state: what to save.
        checkpoint_path: file of this rank.
        is_sharded: whether each rank saves a file of its own; then all ranks call this together.
    Raises:
        OSError: the disk is full or fails. The previous checkpoint is unchanged, and nothing else is left.
    """
    def wait_for_ranks() -> None:
        if is_sharded:
            flashy.distrib.barrier()

    temporary, complete = Path(f"{checkpoint_path}.tmp"), Path(f"{checkpoint_path}.tmp.done")
    if flashy.distrib.is_rank_zero():
        complete.unlink(missing_ok=True)
    wait_for_ranks()
    _write(state, temporary)
    wait_for_ranks()
    if is_sharded and flashy.distrib.is_rank_zero():
        complete.touch()
        flush_to_disk(complete.parent)
    wait_for_ranks()
    if checkpoint_path.name == KEPT and not is_sharded and checkpoint_path.exists():
        _keep(checkpoint_path)
    temporary.replace(checkpoint_path)
    flush_to_disk(checkpoint_path.parent)
    wait_for_ranks()
    if flashy.distrib.is_rank_zero():
        complete.unlink(missing_ok=True)
    logger.info("Checkpoint saved to %s", checkpoint_path)


def previous(checkpoint_path: Path) -> Path:
    """Return where the checkpoint before this one is kept."""
    return checkpoint_path.with_name(f"{checkpoint_path.name}.previous")


def fall_back(checkpoint_path: Path) -> tp.Optional[Path]:
    """Put the previous checkpoint in the place of one that cannot be read.

    Returns:
        Where the unreadable file has been moved; None if there is no previous checkpoint, and then nothing is changed.
    """
    kept = previous(checkpoint_path)
    if not kept.exists():
        return None
    broken = checkpoint_path.with_name(f"{checkpoint_path.name}.unreadable")
    checkpoint_path.replace(broken)
    kept.replace(checkpoint_path)
    flush_to_disk(checkpoint_path.parent)
    return broken


def remove_unfinished(*checkpoint_paths: Path) -> None:
    """Remove what a process that was killed while saving has left. Not for shards, see `save_checkpoint`."""
    for path in (*checkpoint_paths, *map(previous, checkpoint_paths)):
        path.with_name(f"{path.name}.tmp").unlink(missing_ok=True)


def _write(state: tp.Any, temporary: Path) -> None:
    try:
        torch.save(state, temporary)
        flush_to_disk(temporary)
    except (OSError, RuntimeError) as error:            # torch raises RuntimeError for a disk that is full.
        temporary.unlink(missing_ok=True)
        free = shutil.disk_usage(temporary.parent).free
        raise OSError(f"{temporary.with_suffix('')} cannot be written, with {free / 1e6:.1f} MB left on its disk; free some "
                      "space and run the same command again: it goes on from what was saved before") from error


def _keep(checkpoint_path: Path) -> None:
    """Keep a checkpoint, which is about to be replaced, by a second name for the same file."""
    kept = previous(checkpoint_path)
    linked = kept.with_name(f"{kept.name}.tmp")
    linked.unlink(missing_ok=True)
    linked.hardlink_to(checkpoint_path)
    linked.replace(kept)
    linked.unlink(missing_ok=True)          # Replacing a name by another one of the same file does nothing.
