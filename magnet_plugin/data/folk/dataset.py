"""The folk set: real fiddle tunes and chorales on sampled instruments, captioned with what is true of each clip.

    magnet data folk --out DIR --clips 2000 --seed 0

gives `DIR/audio/SPLIT/NNNNN.wav` (16 bit, mono) with a JSON beside each, AudioCraft's manifests in
`DIR/egs/{train,valid,evaluate,generate}`, and `DIR/folk.json` with the arguments once all is done.
"""
from __future__ import annotations

import json
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..folders import fresh_folder, locked, read_mark, write_mark
from ..manifests import entry, write_manifest
from ..parallel import parallel_map
from .render import render
from .tunes import Tune, load_tunes, split_tunes

FORMAT = 3                  # goes up when the same arguments give other clips
MARK = "folk.json"
GENERATE_CLIPS = 32         # a small share of `evaluate`, for samples while training
MIN_TUNES, MAX_TUNES, CLIPS_PER_TUNE = 64, 10_000, 2
CANDIDATES = 4              # tunes to try for a clip, should the first have no fit crop
SPLITS: Mapping[str, float] = {"train": 0.8, "valid": 0.1, "evaluate": 0.1}


class Task(NamedTuple):
    """One clip to make; `stem` is its path in `folder` without an ending."""

    folder: str
    stem: str
    tunes: list[Tune]
    seed: tuple[int, int, int]
    sample_rate: int
    duration: float


def write_wav(path: Path, wav: np.ndarray, sample_rate: int) -> None:
    """Writes mono audio `[T]` in [-1, 1] as 16-bit WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(wav * 32767).astype("<i2").tobytes())


def make_clip(task: Task) -> float:
    """Writes one clip and its JSON; gives its peak. What it writes depends on the task alone.

    Raises:
        ValueError: no tune has a fit crop of this length.
    """
    rng = np.random.default_rng(task.seed)
    for tune in task.tunes:
        clip = render(rng, tune, task.sample_rate, task.duration)
        if clip is not None:
            wav, facts = clip
            path = Path(task.folder, task.stem + ".wav")
            write_wav(path, wav, task.sample_rate)
            path.with_suffix(".json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
            return round(float(np.abs(wav).max()), 6)
    raise ValueError(f"No tune gives a clip of `duration`={task.duration} s: use a longer one.")


def share_out(clips: int, splits: Mapping[str, float]) -> dict[str, int]:
    """Numbers of clips that add up to `clips`, each split getting at least one."""
    counts = {name: max(1, int(clips * share / sum(splits.values()))) for name, share in splits.items()}
    largest = max(counts, key=lambda name: counts[name])
    counts[largest] += clips - sum(counts.values())
    return counts


def choose_tunes(clips: int, splits: Mapping[str, float], jobs: int | None, progress: bool) -> dict[str, list[Tune]]:
    """Enough tunes for `clips` clips, at least one in each split.

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
            raise ValueError(f"No tune is left for `splits.{empty[0]}`={splits[empty[0]]}: give it a larger share.")
        count *= 2


def plan(folder: Path, parts: dict[str, list[Tune]], arguments: dict[str, Any]) -> dict[str, list[Task]]:
    """All clips to make, by split; each split goes through its own tunes in turn."""
    tasks: dict[str, list[Task]] = {}
    for number, (name, size) in enumerate(share_out(arguments["clips"], arguments["splits"]).items()):
        order = np.random.default_rng((arguments["seed"], number)).permutation(len(parts[name]))
        tasks[name] = [
            Task(str(folder), f"audio/{name}/{i:05d}",
                 [parts[name][order[(i + k) % len(order)]] for k in range(CANDIDATES)],
                 (arguments["seed"], number + 1, i), arguments["sample_rate"], arguments["duration"])
            for i in range(size)]
    return tasks


def build(folder: Path, out: Path, parts: dict[str, list[Tune]], arguments: dict[str, Any],
          jobs: int | None, progress: bool) -> None:
    """Renders all clips into `folder` and writes the manifests, whose paths say `out`."""
    tasks = plan(folder, parts, arguments)
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
    write_mark(folder, MARK, out, arguments)


def found(out: Path, arguments: dict[str, Any]) -> bool:
    """Whether `out` holds this very set.

    Raises:
        ValueError: it holds another one, or something else.
    """
    mark = read_mark(out, MARK)
    if mark is not None and mark != arguments:
        raise ValueError(f"{out} holds a folk set made with {mark}, asked for is {arguments}: "
                         "choose another `out`, or remove that folder.")
    return mark is not None


def make_folk(out: Path, clips: int = 2000, seed: int = 0, sample_rate: int = 16000, duration: float = 5.0,
              jobs: int | None = None, progress: bool = True,
              splits: Mapping[str, float] = SPLITS) -> dict[str, Path]:
    """Makes the folk set in `out` unless it is there already; gives the manifest folder of each split.

    The audio and JSON files depend on the arguments alone, not on `jobs` or on what was made before. No tune
    stands in two splits. `generate` is the first clips of the last split.

    Args:
        clips: number of clips, all splits together.
        sample_rate: in Hz.
        duration: of each clip, in seconds.
        jobs: processes; None is one for each core.
        splits: name to share; the shares are taken relative to their sum.

    Raises:
        ValueError: a setting makes no sense, or `out` holds something else.
    """
    if not splits or clips < len(splits) or min(splits.values()) <= 0 or "generate" in splits or seed < 0:
        raise ValueError(f"`clips`={clips}, `seed`={seed}, `splits`={dict(splits)} make no set: take at least one clip "
                         "a split, a seed from 0 up, shares above 0 (`generate` is made of the last split).")
    if not 8000 <= sample_rate <= 48000 or not 0.5 <= duration <= 600:
        raise ValueError(f"`sample_rate`={sample_rate} or `duration`={duration} is out of range: "
                         "use 8000 to 48000 Hz and 0.5 to 600 seconds.")
    out = Path(out).expanduser().resolve()
    arguments = {"format": FORMAT, "clips": clips, "seed": seed, "sample_rate": sample_rate,
                 "duration": float(duration), "splits": {name: float(share) for name, share in splits.items()}}
    if not found(out, arguments):
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out):
            if not found(out, arguments):
                parts = choose_tunes(clips, splits, jobs, progress)
                with fresh_folder(out, keep=MARK) as folder:
                    build(folder, out, parts, arguments, jobs, progress)
    return {name: out / "egs" / name for name in [*splits, "generate"]}
