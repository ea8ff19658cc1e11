"""Facts about the audio and the captions of a data set, which `magnet data check` prints."""
from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .captions import caption_from_name, words_of
from .listing import AUDIO_SUFFIXES, CAPTION_SOURCE, Item, has_caption, list_csv, list_folder, read_sidecar
from .manifests import MANIFEST_NAME, SPLITS, read_manifest
from .preflight import OPENED, padding_share
from .sound_files import probe_file

MANIFESTS = (MANIFEST_NAME, "data.jsonl")
ALL = "all"                     # the only split of a folder without manifests
SILENCE = 1e-3                  # -60 dB of full scale, as the root mean square of a window
WINDOW, PIECE, PIECES = 0.1, 5, 6       # seconds of a window, seconds of a piece, and pieces of a file that are read


@dataclass(frozen=True)
class Sound:
    """What was found out about one file; `fault` says why it cannot be used, and `silence` is None if it was not read."""
    item: Item
    seconds: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    silence: float | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Captions:
    """Captions of a split.

    Attributes:
        missing: files without a caption.
        from_names: files whose caption was made from their names, or would be by `magnet data scan`.
        repeated: files whose caption another file has, too.
        wordless: captions without a word or number that the conditioner `words` reads.
        longest: words of the longest caption.
        vocabulary: number of different words.
    """
    missing: int
    from_names: int
    repeated: int
    wordless: int
    longest: int
    vocabulary: int


@dataclass(frozen=True)
class Split:
    """Facts about a split. Durations are in seconds; shares are between 0 and 1.

    Attributes:
        files: number of files that can be used.
        faults: what is wrong with the others.
        total, shortest, median, longest: durations.
        padding: share of padding in a batch.
        silence: share of silence, in the files that were listened to; None without any.
        listened: number of those files.
        sample_rates, channels: number of files of each.
        captions: see `Captions`.
    """
    files: int
    faults: list[str]
    total: float
    shortest: float
    median: float
    longest: float
    padding: float
    silence: float | None
    listened: int
    sample_rates: dict[int, int]
    channels: dict[int, int]
    captions: Captions
    durations: list[float] = field(repr=False, default_factory=list)
    paths: frozenset[str] = field(repr=False, default_factory=frozenset)


@dataclass(frozen=True)
class Target:
    """What the model and the run are like. Defaults are those of the bundled model and `solver=magnet/finetune`."""
    segment_duration: float = 5.0
    sample_rate: int = 16000
    channels: int = 1
    batch_size: int = 16
    min_segment_ratio: float = 1.0


def find_splits(source: Path) -> dict[str, list[Item]]:
    """List the files of each split.

    Args:
        source: output folder of `magnet data scan` or `magnet data folk`, folder or file of one manifest; or a folder or CSV
            file of audio, whose files make up one split.
    Raises:
        ValueError: there is no audio.
    """
    source = source.expanduser().absolute()
    if not source.exists():
        raise ValueError(f"{source} does not exist; give a folder of audio, the output folder of `magnet data scan`, or a "
                         "manifest")
    if source.name in MANIFESTS:
        source = source.parent
    folders = [source] if _has_manifest(source) else [path for path in sorted(source.glob("egs/*")) if _has_manifest(path)]
    if folders:
        found = {folder.name: [_item(Path(line["path"])) for line in read_manifest(folder)] for folder in folders}
    elif source.suffix.lower() == ".csv" or source.is_dir():
        found = {ALL: (list_folder(source, source / "egs") if source.is_dir() else list_csv(source))[0]}
        for item in found[ALL]:
            _name_caption(item)
    else:
        raise ValueError(f"{source} is neither a folder nor a CSV file nor a manifest called {MANIFEST_NAME}")
    if not any(found.values()):
        raise ValueError(f"{source} has no audio; give a folder with {', '.join(AUDIO_SUFFIXES)} files")
    return dict(sorted(found.items(), key=lambda pair: SPLITS.index(pair[0]) if pair[0] in SPLITS else len(SPLITS)))


def _has_manifest(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MANIFESTS)


def _item(path: Path) -> Item:
    metadata, warning = read_sidecar(path)
    return Item(path, path.name, metadata, warning=warning)


def _name_caption(item: Item) -> None:
    caption = None if has_caption(item.metadata) else caption_from_name(item.name)
    if caption:
        item.metadata |= {"description": caption, CAPTION_SOURCE: "name"}


def check(source: Path, target: Target, progress: bool = True) -> dict[str, Split]:
    """Open the files of each split, listen to some of them, and return facts.

    Args:
        source: see `find_splits`.
        target: decides the share of padding.
        progress: show a progress bar.
    Raises:
        ValueError: there is no audio.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]
    splits = find_splits(source)
    with tqdm(desc="checking", total=sum(map(len, splits.values())), disable=not progress, mininterval=0.5) as bar, \
            ThreadPoolExecutor(4) as pool:
        found = {}
        for name, items in splits.items():
            step = max(1, len(items) // OPENED)
            sounds = []
            for sound in pool.map(open_sound, items, (number % step == 0 for number in range(len(items)))):
                sounds.append(sound)
                bar.update()
            found[name] = summarize(sounds, target)
    return found


def open_sound(item: Item, listen: bool) -> Sound:
    """Read the header of a file, and the share of silence if wanted."""
    import soundfile  # type: ignore[import-untyped]
    found = probe_file(item.path)
    if isinstance(found, str):
        return Sound(item, fault=found)
    try:
        with soundfile.SoundFile(str(item.path)) as file:
            return Sound(item, *found, silent_share(file) if listen else None)
    except (RuntimeError, OSError) as error:            # damaged in its middle
        return Sound(item, fault=f"{item.path}: {error}")


def silent_share(file: Any) -> float:
    """Compute the share of windows below -60 dB, in at most `PIECES` pieces that are spread over an open sound file."""
    import numpy as np
    window, length = max(1, round(WINDOW * file.samplerate)), PIECE * file.samplerate
    pieces = min(PIECES, -(-file.frames // length))
    quiet = count = 0
    for start in np.linspace(0, max(0, file.frames - length), pieces).astype(int):
        file.seek(int(start))
        audio = file.read(length, dtype="float32", always_2d=True)
        power = (audio ** 2).mean(1)
        means = np.add.reduceat(power, np.arange(0, len(power), window)) / window if len(power) else power
        quiet, count = quiet + int((means < SILENCE ** 2).sum()), count + len(means)
    return quiet / max(1, count)


def summarize(sounds: Sequence[Sound], target: Target) -> Split:
    """Summarize the files of a split."""
    good = [sound for sound in sounds if sound.fault is None]
    durations = sorted(sound.seconds for sound in good)
    heard = [(sound.silence, sound.seconds) for sound in good if sound.silence is not None]
    weight = sum(seconds for _, seconds in heard)
    padding = [padding_share(seconds, target.segment_duration, target.min_segment_ratio) for seconds in durations]
    return Split(
        files=len(good), faults=[sound.fault for sound in sounds if sound.fault], total=sum(durations),
        shortest=min(durations, default=0.0), median=statistics.median(durations) if durations else 0.0,
        longest=max(durations, default=0.0), padding=statistics.mean(padding) if padding else 0.0,
        silence=sum(share * seconds for share, seconds in heard) / weight if weight else None, listened=len(heard),
        sample_rates=_counted(sound.sample_rate for sound in good), channels=_counted(sound.channels for sound in good),
        captions=summarize_captions([sound.item.metadata for sound in good]), durations=durations,
        paths=frozenset(str(sound.item.path) for sound in good))


def summarize_captions(metadata: Sequence[Mapping[str, Any]]) -> Captions:
    """Summarize the captions of a split."""
    captions = [_text(facts["description"]) for facts in metadata if has_caption(dict(facts))]
    words = [words_of(caption) for caption in captions]
    counts = Counter(caption.strip().lower() for caption in captions)
    return Captions(missing=len(metadata) - len(captions),
                    from_names=sum(facts.get(CAPTION_SOURCE) == "name" for facts in metadata),
                    repeated=sum(count for count in counts.values() if count > 1), wordless=sum(not one for one in words),
                    longest=max(map(len, words), default=0), vocabulary=len({word for one in words for word in one}))


def _text(description: Any) -> str:
    return " ".join(map(str, description)) if isinstance(description, list) else str(description)


def _counted(values: Any) -> dict[int, int]:
    return dict(Counter(values).most_common())


def as_json(splits: Mapping[str, Split], **others: Any) -> str:
    """Format the facts as JSON, without the lists of all durations and paths."""
    from dataclasses import asdict
    plain = {name: {key: value for key, value in asdict(split).items() if key not in ("durations", "paths")}
             for name, split in splits.items()}
    return json.dumps({"splits": plain, **others}, indent=1, ensure_ascii=False)
