"""The folk set: folk tunes and chorales on sampled instruments, with captions that describe each clip correctly.

    magnet data folk --out DIR --clips 2000 --seed 0

The steps: `sources` lists the tunes in music21's corpus, `tunes` parses their notes and assigns them to splits, `render`
plays a crop of a tune, `captions` describes it, and this module writes the files:

    DIR/audio/SPLIT/NNNNN.wav                       16-bit mono audio, with a JSON file next to each
    DIR/egs/{train,valid,evaluate,generate}/        AudioCraft's manifests
    DIR/folk.json                                   the arguments, written last
"""
from __future__ import annotations

import json
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..folders import locked, read_marker, staging_folder, write_marker
from ..manifests import GENERATE_CLIPS, check_shares, entry, write_manifest
from ..parallel import parallel_map
from .render import render
from .soundfonts import find
from .tunes import Tune, load_tunes, split_tunes

FORMAT = 3                  # increase it whenever the same arguments give other clips
MARKER = "folk.json"
MIN_TUNES, MAX_TUNES, CLIPS_PER_TUNE = 64, 10_000, 2
CANDIDATES = 4              # tunes to try for a clip, because some have no suitable crop
FOLK_SHARES: Mapping[str, float] = {"train": 0.8, "valid": 0.1, "evaluate": 0.1}


class Task(NamedTuple):
    """One clip to render.

    Attributes:
        folder: staging folder of the set.
        stem: path of the clip in `folder`, without suffix.
        tunes: candidates, in the order in which they are tried.
        seed: seed of all random choices for this clip.
        sample_rate: in Hz.
        duration: in seconds.
        soundfonts: see `render`.
    """

    folder: str
    stem: str
    tunes: list[Tune]
    seed: tuple[int, int, int]
    sample_rate: int
    duration: float
    soundfonts: tuple[str, ...] = ()


def write_wav(path: Path, wav: np.ndarray, sample_rate: int) -> None:
    """Write mono audio [T] in [-1, 1] as 16-bit WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(wav * 32767).astype("<i2").tobytes())


def make_clip(task: Task) -> float:
    """Render one clip, write it and its JSON file, and return its peak. The files depend only on the task.

    Raises:
        ValueError: no tune has a suitable crop of this length.
    """
    rng = np.random.default_rng(task.seed)
    for tune in task.tunes:
        clip = render(rng, tune, task.sample_rate, task.duration, task.soundfonts)
        if clip is not None:
            wav, metadata = clip
            path = Path(task.folder, task.stem + ".wav")
            write_wav(path, wav, task.sample_rate)
            path.with_suffix(".json").write_text(json.dumps(metadata) + "\n", encoding="utf-8")
            return round(float(np.abs(wav).max()), 6)
    raise ValueError(f"no tune has a suitable crop of duration={task.duration} s; use a longer duration")


def split_sizes(clips: int, splits: Mapping[str, float]) -> dict[str, int]:
    """Divide `clips` among the splits by their shares, with at least one clip each."""
    counts = {name: max(1, int(clips * share / sum(splits.values()))) for name, share in splits.items()}
    largest = max(counts, key=lambda name: counts[name])
    counts[largest] += clips - sum(counts.values())
    return counts


def choose_tunes(clips: int, splits: Mapping[str, float], jobs: int | None, progress: bool) -> dict[str, list[Tune]]:
    """Load enough tunes for `clips` clips and assign them to splits, with at least one tune each.

    Raises:
        ValueError: a split's share is too small for a single tune.
    """
    count = max(MIN_TUNES, clips // CLIPS_PER_TUNE)
    while True:
        parts = split_tunes(load_tunes(count, jobs, progress), splits)
        empty = [name for name, tunes in parts.items() if not tunes]
        if not empty:
            return parts
        if count > MAX_TUNES:
            raise ValueError(f"no tune falls into the split {empty[0]}={splits[empty[0]]}; give it a larger share")
        count *= 2


def plan(folder: Path, tunes: dict[str, list[Tune]], arguments: dict[str, Any]) -> dict[str, list[Task]]:
    """List the clips to render, by split. Each split cycles through its own tunes, in random order."""
    tasks: dict[str, list[Task]] = {}
    for number, (name, size) in enumerate(split_sizes(arguments["clips"], arguments["splits"]).items()):
        order = np.random.default_rng((arguments["seed"], number)).permutation(len(tunes[name]))
        tasks[name] = [
            Task(str(folder), f"audio/{name}/{i:05d}",
                 [tunes[name][order[(i + k) % len(order)]] for k in range(CANDIDATES)],
                 (arguments["seed"], number + 1, i), arguments["sample_rate"], arguments["duration"],
                 tuple(arguments.get("soundfonts", ())))
            for i in range(size)]
    return tasks


def build(folder: Path, out: Path, tunes: dict[str, list[Tune]], arguments: dict[str, Any],
          jobs: int | None, progress: bool) -> None:
    """Render all clips into the staging folder and write manifests with their paths in `out`."""
    tasks = plan(folder, tunes, arguments)
    for name in tasks:
        (folder / "audio" / name).mkdir(parents=True)
    flat = [task for part in tasks.values() for task in part]
    peaks = dict(zip((task.stem for task in flat), parallel_map(make_clip, flat, jobs, "rendering", progress),
                     strict=True))
    rate = arguments["sample_rate"]
    for name, part in tasks.items():
        lines = [entry(out / f"{task.stem}.wav", round(task.duration * rate) / rate, rate, peaks[task.stem])
                 for task in part]
        write_manifest(folder / "egs" / name, lines)
        if name == list(tasks)[-1]:
            write_manifest(folder / "egs" / "generate", lines[:GENERATE_CLIPS])
    write_marker(folder, MARKER, out, arguments)


def is_made(out: Path, arguments: dict[str, Any]) -> bool:
    """Return whether `out` already holds the set with these arguments.

    Raises:
        ValueError: it holds a set with other arguments, or other files.
    """
    made_with = read_marker(out, MARKER)
    if made_with is not None and made_with != arguments:
        raise ValueError(f"out={out} holds a folk data set made with {made_with}, which differs from {arguments}; "
                         "choose another folder, or remove this one")
    return made_with is not None


def check_arguments(clips: int, seed: int, sample_rate: int, duration: float, splits: Mapping[str, float]) -> None:
    """Check the arguments of `make_folk`.

    Raises:
        ValueError: one of them is out of range.
    """
    check_shares(splits)
    if clips < len(splits):
        raise ValueError(f"clips={clips} is too small; use at least one clip per split, here {len(splits)}")
    if seed < 0:
        raise ValueError(f"seed={seed} is negative; use 0 or higher")
    if not 8000 <= sample_rate <= 48000:
        raise ValueError(f"sample_rate={sample_rate} Hz is out of range; use 8000 to 48000 Hz")
    if not 0.5 <= duration <= 600:
        raise ValueError(f"duration={duration:g} s is out of range; use 0.5 to 600 seconds")


def make_folk(out: Path, clips: int = 2000, seed: int = 0, sample_rate: int = 16000, duration: float = 5.0,
              jobs: int | None = None, progress: bool = True,
              splits: Mapping[str, float] = FOLK_SHARES, soundfonts: Sequence[str] = ()) -> dict[str, Path]:
    """Render the folk set to `out`, unless it is there already.

    The audio and JSON files depend only on the arguments, not on `jobs`. No tune is in more than one split. The split
    `generate` consists of the first clips of the last split.

    Args:
        out: output folder.
        clips: number of clips over all splits.
        seed: random seed, 0 or higher.
        sample_rate: in Hz, from 8000 to 48000.
        duration: length of each clip in seconds, from 0.5 to 600.
        jobs: number of processes; None uses all available cores.
        progress: show progress bars.
        splits: split name to share, relative to their sum.
        soundfonts: names of `soundfonts.SOUNDFONTS`, or paths of .sf2 or .sf3 files; each clip draws one. If empty, all
            clips are played by the default one, which comes with pretty_midi.
    Returns:
        Split name to manifest folder.
    Raises:
        ValueError: an argument is invalid, or `out` holds something else.
    """
    check_arguments(clips, seed, sample_rate, duration, splits)
    out = Path(out).expanduser().resolve()
    arguments: dict[str, Any] = {"format": FORMAT, "clips": clips, "seed": seed, "sample_rate": sample_rate,
                 "duration": float(duration), "splits": {name: float(share) for name, share in splits.items()}}
    if soundfonts:
        arguments["soundfonts"] = list(soundfonts)
        for name in soundfonts:
            find(name)
    if not is_made(out, arguments):
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out):
            if not is_made(out, arguments):
                tunes = choose_tunes(clips, splits, jobs, progress)
                with staging_folder(out, keep=MARKER) as folder:
                    build(folder, out, tunes, arguments, jobs, progress)
    return {name: out / "egs" / name for name in [*splits, "generate"]}
