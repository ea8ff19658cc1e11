"""Unreadable files during training: another clip is drawn, each file is named once, and too many failures end the run.

AudioCraft draws another clip too, but logs every failure, counts none, reads the same file again in a permutation, ends at
once if the metadata of a clip cannot be read, and takes a crop behind the end of a file for silence.
"""
from __future__ import annotations

import functools
import logging
import multiprocessing
import typing as tp

import torch

from .preflight import some
from .report import printable

LIMIT = 0.01            # default of `datasource.max_unreadable`
FEWEST_READS = 100      # the share of failures is one of at least so many reads
NAMED = 10              # files that the error lists
logger = logging.getLogger(__name__)
_upstream = logging.getLogger("audiocraft.data.audio_dataset")


class TooManyUnreadable(ValueError):
    """Too many reads failed. The message stays one line when PyTorch passes it on from a data worker, with a traceback."""

    START = "too many unreadable files"

    def __init__(self, message: str) -> None:
        super().__init__(message[max(0, message.rfind(self.START)):].strip())


class Reads:
    """Counts of the reads of a data set, shared by its data workers."""

    def __init__(self, split: str, paths: tp.Sequence[str], limit: float, attempts: int) -> None:
        self.split, self.paths, self.limit, self.attempts = split, paths, limit, attempts
        self._counts = multiprocessing.Array("q", 2)                        # reads, and those that failed
        self._unreadable = multiprocessing.RawArray("b", len(paths))        # 1 for each file that was named

    def succeed(self) -> None:
        """Count a read."""
        with self._counts.get_lock():
            self._counts[0] += 1

    def fail(self, path: str, reason: str, last: bool) -> None:
        """Count a read that failed, and log the file when it fails for the first time.

        Args:
            path: the file.
            reason: what is wrong with it.
            last: whether no other clip is drawn.
        Raises:
            TooManyUnreadable: more reads failed than allowed, or no other clip is drawn.
        """
        with self._counts.get_lock():
            self._counts[0] += 1
            self._counts[1] += 1
            number = self._numbers[path]
            new, self._unreadable[number] = not self._unreadable[number], 1
            reads, failed = int(self._counts[0]), int(self._counts[1])
            files = [self.paths[n] for n, flag in enumerate(self._unreadable) if flag]
        if new:
            logger.warning("Skipped an unreadable file of the split %s, and drew another clip: %s (%s). So far %d files and "
                           "%d of %d reads.", self.split, printable(path), reason, len(files), failed, reads)
        if last or failed > self.limit * max(reads, FEWEST_READS):
            why = f"{self.attempts} clips in a row" if last else f"more than datasource.max_unreadable={self.limit:g} allows"
            raise TooManyUnreadable(
                f"{TooManyUnreadable.START} in the split {self.split}: {failed} of {reads} reads failed, {why}. "
                f"{len(files)} files: {some(files, NAMED)}; the last failed with: {reason}. Repair or remove them and run "
                f"`magnet data scan` again, or raise datasource.max_unreadable")

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {path: number for number, path in enumerate(self.paths)}


def check_limit(limit: float) -> None:
    """Check `datasource.max_unreadable`.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit <= 1:
        raise ValueError(f"datasource.max_unreadable={limit} is not valid; give the share of reads that may fail, from 0 to "
                         f"1 ({LIMIT:g} by default)")


def count_reads(loader: tp.Any, split: str, limit: float) -> None:
    """Let the data set of a loader skip unreadable files; its workers have to call `skip_unreadable` when they start.

    Args:
        loader: a `torch.utils.data.DataLoader` of an AudioCraft `AudioDataset`, or of a `torch.utils.data.Subset` of one. Of
            other data sets, such as cached batches, nothing changes.
        split: its name.
        limit: share of reads that may fail.
    """
    dataset = _whole(loader.dataset)
    if hasattr(dataset, "max_read_retry"):
        dataset.reads = Reads(split, [str(meta.path) for meta in dataset.meta], limit, max(1, dataset.max_read_retry))
        dataset.max_read_retry = 1
        if not loader.num_workers:
            skip_unreadable(dataset)


def skip_unreadable(dataset: tp.Any) -> None:
    """Let a data set that `count_reads` prepared skip unreadable files. Other items stay as they are.

    Call this in the process that reads the data set: its new class is local, so it cannot be sent to a worker.
    """
    dataset = _whole(dataset)
    if hasattr(dataset, "reads"):
        dataset.__class__ = _skipping(type(dataset))         # type: ignore[arg-type]


def _whole(dataset: tp.Any) -> tp.Any:
    while isinstance(dataset, torch.utils.data.Subset):
        dataset = dataset.dataset
    return dataset


def check_item(item: tp.Any) -> None:
    """Check a clip of a data set.

    Raises:
        ValueError: it has no samples, or some that are not finite.
    """
    wav, info = item if isinstance(item, tuple) else (item, None)
    if info is not None and info.n_frames == 0:
        raise ValueError(f"no samples at {info.seek_time:.2f} s, although the manifest says {info.meta.duration:.2f} s")
    if not wav.isfinite().all():
        raise ValueError("samples are not finite")


@functools.lru_cache
def _skipping(klass: type) -> type:
    class Skipping(klass):                       # type: ignore[misc,valid-type]
        _attempt = 0
        _drawn: tp.Any = None

        def sample_file(self, index: int, rng: torch.Generator) -> tp.Any:
            if self.permutation_on_files:        # the file of a later epoch
                index += self._attempt * len(self)
            else:                                # draws as AudioCraft's own attempts
                for _ in range(self._attempt):
                    super().sample_file(index, rng)
                    torch.rand(1, generator=rng)
            self._drawn = super().sample_file(index, rng)
            return self._drawn

        def __getitem__(self, index: int) -> tp.Any:
            self._attempt = 0
            while True:
                try:
                    item = self._read(index)
                except MemoryError:
                    raise
                except Exception as error:       # anything: decoders, a changed file, metadata
                    reason = printable(" ".join(f"{type(error).__name__}: {error}".split())[:200])
                    self._attempt += 1
                    self.reads.fail(str(self._drawn.path), reason, self._attempt == self.reads.attempts)
                else:
                    self.reads.succeed()
                    return item

        def _read(self, index: int) -> tp.Any:
            if self.segment_duration is None:
                index = (index + self._attempt) % len(self.meta)
                self._drawn = self.meta[index]
            disabled, _upstream.disabled = _upstream.disabled, True         # it would log every failure
            try:
                item = super().__getitem__(index)
            finally:
                _upstream.disabled = disabled
            check_item(item)
            return item
    return Skipping
