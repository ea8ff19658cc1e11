"""What to set, or to change, for a run on a data set: conclusions from the facts of `data.check`."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .check import ALL, Split, Target
from .manifests import SPLITS
from .preflight import PADDING_LIMIT, some

MUCH_SILENCE = 0.2
SHORTEST_SEGMENT = 0.5      # seconds
LONG_CAPTION = 64           # words; T5 reads more, but a clip of seconds hardly holds more


class Advice(NamedTuple):
    """One conclusion: the setting for `dora run` (empty if there is none), why, and whether a run fails without a change."""
    setting: str
    reason: str
    needed: bool = False


def advise(splits: Mapping[str, Split], target: Target) -> list[Advice]:
    """Conclude what to set and what to change.

    Args:
        splits: facts of each split.
        target: model and settings that the data is meant for.
    """
    train = splits.get("train") or splits.get(ALL)
    found = [*_splits(splits)]
    for name, split in splits.items():
        found += [Advice("", f"{name}: {reason}", needed) for reason, needed in _of_split(split, target)]
    if train is not None and train.files:
        found += [*_segments(train, target), *_batches(train, target)]
    return found


def _splits(splits: Mapping[str, Split]) -> Iterator[Advice]:
    """Check that a run has all of its splits, and that they differ."""
    if ALL in splits:
        yield Advice("", "there are no manifests yet; run `magnet data scan FOLDER --out DIR`, which also draws the splits",
                     needed=True)
        return
    if len(splits) > 1:
        for name in SPLITS:
            if name not in splits or not splits[name].files:
                yield Advice("", f"the split {name} has no files; add files and scan them again, or set datasource.{name} "
                             "to another manifest folder", needed=True)
    train = splits.get("train")
    for name, split in splits.items():
        if train is not None and name != "train" and train.paths & split.paths:
            yield Advice("", f"{len(train.paths & split.paths)} of the {split.files} files of {name} are in train, too; its "
                         "losses will be too low")


def _of_split(split: Split, target: Target) -> Iterator[tuple[str, bool]]:
    """Check the files and captions of a split."""
    if split.faults:
        yield f"{len(split.faults)} files cannot be used ({some(split.faults)}); repair or remove them, and scan again", True
    captions = split.captions
    if captions.missing:
        yield (f"{captions.missing} of {split.files} files have no caption; write captions (a .txt file next to the audio, "
               "or a CSV file), or give folders and files names that describe them, and scan again. A model without texts "
               "is trained with conditioner=none"), captions.missing == split.files
    if captions.wordless:
        yield (f"{captions.wordless} captions have no Latin letters or digits, which is all that conditioner=words reads; "
               "translate them, or train with conditioner=text2music"), False
    if captions.longest > LONG_CAPTION:
        yield f"the longest caption has {captions.longest} words; shorten those that do not describe the sound", False
    if split.silence is not None and split.silence > MUCH_SILENCE:
        yield f"{split.silence:.0%} of the audio is silence (below -60 dB); cut it off, or the model learns it", False
    low = sum(count for rate, count in split.sample_rates.items() if rate < target.sample_rate)
    if low:
        yield f"{low} of {split.files} files have a lower sample rate than the model's {target.sample_rate} Hz: their high "\
              "frequencies are missing", False
    fewer = sum(count for channels, count in split.channels.items() if channels < target.channels)
    if fewer:
        yield f"{fewer} of {split.files} files are mono, and the model has {target.channels} channels; both get the same "\
              "sound", False


def _segments(train: Split, target: Target) -> Iterator[Advice]:
    """Choose the length of the crops, if more than PADDING_LIMIT of a batch would be padding."""
    if train.padding <= PADDING_LIMIT:
        return
    short = sum(seconds < target.segment_duration for seconds in train.durations)
    if short > len(train.durations) * PADDING_LIMIT:
        fitting = math.floor(train.durations[len(train.durations) // 20] * 10) / 10
        yield Advice(f"dataset.segment_duration={max(SHORTEST_SEGMENT, fitting):g}",
                     f"{train.padding:.0%} of each batch would be padding: {short} of {train.files} clips are shorter than "
                     f"{target.segment_duration:g} s")
    else:
        yield Advice("dataset.min_segment_ratio=1", f"{train.padding:.0%} of each batch would be padding, because crops may "
                     "reach past the end of a clip")


def _batches(train: Split, target: Target) -> Iterator[Advice]:
    """Choose the batch size, if there are fewer clips than a batch."""
    if train.files < target.batch_size:
        size = 2 ** int(math.log2(train.files))
        yield Advice(f"dataset.batch_size={size}", f"a batch of {target.batch_size} would repeat clips: there are only "
                     f"{train.files}")
