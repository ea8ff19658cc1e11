"""The folk set: real fiddle tunes on sampled instruments, captioned with what is true of each clip.

    python -m magnet_plugin.data.folk --out DIR --clips 2000 --seed 0

gives `DIR/audio/SPLIT/NNNNN.wav` (16 bit, mono) with a JSON beside each, AudioCraft's manifests in
`DIR/egs/{train,valid,evaluate,generate}`, and `DIR/folk.json` with the arguments once all is done.
"""
import argparse
from contextlib import contextmanager
import json
import os
from pathlib import Path
import shutil
import sys
import tempfile
import typing as tp
import wave

import numpy as np

from .manifests import entry, read_manifest, write_manifest
from .parallel import parallel_map
from .render import render
from .tunes import Tune, load_tunes, split_tunes

FORMAT = 1                  # goes up when the same arguments give other clips
DONE = "folk.json"
GENERATE_CLIPS = 32         # a small share of `evaluate`, for samples while training
MIN_TUNES, CLIPS_PER_TUNE = 64, 2
SPLITS: tp.Mapping[str, float] = {"train": 0.8, "valid": 0.1, "evaluate": 0.1}


class Task(tp.NamedTuple):
    """One clip to make; `stem` is its path in the set without an ending."""
    folder: str
    stem: str
    tune: Tune
    seed: tp.Tuple[int, int]
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
    """Writes one clip and its JSON; gives its peak. What it writes depends on the task alone."""
    wav, facts = render(np.random.default_rng(task.seed), task.tune, task.sample_rate, task.duration)
    path = Path(task.folder, task.stem + ".wav")
    write_wav(path, wav, task.sample_rate)
    path.with_suffix(".json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return round(float(np.abs(wav).max()), 6)


def share_out(clips: int, splits: tp.Mapping[str, float]) -> tp.Dict[str, int]:
    """Numbers of clips that add up to `clips`, each split getting at least one."""
    total, names = sum(splits.values()), list(splits)
    counts = {name: max(1, int(clips * share / total)) for name, share in splits.items()}
    counts[names[0]] = max(1, counts[names[0]] + clips - sum(counts.values()))
    return counts


def plan(folder: Path, clips: int, seed: int, sample_rate: int, duration: float,
         splits: tp.Mapping[str, float], jobs: tp.Optional[int], progress: bool) -> tp.Dict[str, tp.List[Task]]:
    """All clips to make, by split; each split goes through its own tunes in turn."""
    count = max(MIN_TUNES, clips // CLIPS_PER_TUNE)
    while True:
        tunes = load_tunes(count, jobs, progress)
        parts = split_tunes(tunes, splits)
        if all(parts.values()) or count > 10_000:
            break
        count *= 2
    tasks: tp.Dict[str, tp.List[Task]] = {}
    for number, (name, size) in enumerate(share_out(clips, splits).items()):
        if not parts[name]:
            raise ValueError(f"No tune is left for the split {name}: give it a larger share in `splits`.")
        order = np.random.default_rng((seed, number)).permutation(len(parts[name]))
        tasks[name] = [
            Task(str(folder), f"audio/{name}/{i:05d}", parts[name][order[i % len(order)]],
                 (seed, 1000 + number * 1_000_000 + i), sample_rate, duration)
            for i in range(size)]
    return tasks


def is_done(out: Path, arguments: tp.Dict[str, tp.Any]) -> bool:
    """Whether `out` holds this very set; if it was moved, its manifests are written anew.

    Raises:
        ValueError: `out` holds another set or files that are not ours.
    """
    if not out.exists():
        return False
    if not (out / DONE).exists():
        strangers = sorted(p.name for p in out.iterdir() if p.name not in ("audio", "egs"))
        if strangers:
            raise ValueError(f"{out} holds files of something else ({strangers[0]}, ...): choose another `out`.")
        return False
    found = json.loads((out / DONE).read_text())
    if found["arguments"] != arguments:
        raise ValueError(f"{out} holds a folk set made with {found['arguments']}, asked for is {arguments}: "
                         "choose another `out`, or remove that folder.")
    if found["root"] != str(out):
        for manifest in (out / "egs").iterdir():
            lines = read_manifest(manifest)
            for line in lines:
                line["path"] = str(out / Path(line["path"]).relative_to(found["root"]))
            write_manifest(manifest, lines)
        write_done(out, out, arguments)
    return True


def write_done(folder: Path, root: Path, arguments: tp.Dict[str, tp.Any]) -> None:
    """Marks a set as complete; `root` is where it will lie."""
    (folder / DONE).write_text(json.dumps({"arguments": arguments, "root": str(root)}, indent=1) + "\n")


@contextmanager
def locked(out: Path) -> tp.Iterator[None]:
    """Lets one process at a time make `out`, where the file system can lock; others wait and find it made."""
    try:
        import fcntl
    except ImportError:  # not on Windows: the move into place keeps things whole, work may be done twice
        yield
        return
    with open(out.parent / f".{out.name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield


def build(folder: Path, out: Path, tasks: tp.Dict[str, tp.List[Task]], arguments: tp.Dict[str, tp.Any],
          jobs: tp.Optional[int], progress: bool) -> None:
    """Renders all clips into `folder` and writes the manifests, whose paths say `out`."""
    for name in tasks:
        (folder / "audio" / name).mkdir(parents=True)
    flat = [task for part in tasks.values() for task in part]
    peaks = dict(zip((task.stem for task in flat), parallel_map(make_clip, flat, jobs, "rendering", progress)))
    for name, part in tasks.items():
        lines = [entry(out / (t.stem + ".wav"), round(t.duration * t.sample_rate) / t.sample_rate,
                       t.sample_rate, peaks[t.stem]) for t in part]
        write_manifest(folder / "egs" / name, lines)
        if part is list(tasks.values())[-1]:
            write_manifest(folder / "egs" / "generate", lines[:GENERATE_CLIPS])
    write_done(folder, out, arguments)


def make_folk(out: Path, clips: int = 2000, seed: int = 0, sample_rate: int = 16000, duration: float = 5.0,
              jobs: tp.Optional[int] = None, progress: bool = True,
              splits: tp.Mapping[str, float] = SPLITS) -> tp.Dict[str, Path]:
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
    if clips < len(splits) or not splits or min(splits.values()) <= 0 or "generate" in splits:
        raise ValueError(f"`clips`={clips} cannot fill `splits`={dict(splits)}: "
                         "raise `clips`, or give every split a share above 0.")
    if not 8000 <= sample_rate <= 48000 or not 0.5 <= duration <= 600:
        raise ValueError(f"`sample_rate`={sample_rate} or `duration`={duration} is out of range: "
                         "use 8000 to 48000 Hz and 0.5 to 600 seconds.")
    out = Path(out).expanduser().resolve()
    arguments = {"format": FORMAT, "clips": clips, "seed": seed, "sample_rate": sample_rate,
                 "duration": float(duration), "splits": {k: float(v) for k, v in splits.items()}}
    out.parent.mkdir(parents=True, exist_ok=True)
    if not is_done(out, arguments):
        with locked(out):
            if not is_done(out, arguments):
                folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.part-", dir=out.parent))
                try:
                    tasks = plan(folder, clips, seed, sample_rate, duration, splits, jobs, progress)
                    build(folder, out, tasks, arguments, jobs, progress)
                    folder.chmod(0o755)
                    if out.exists():
                        shutil.rmtree(out)
                    os.replace(folder, out)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
    return {name: out / "egs" / name for name in [*splits, "generate"]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `make_folk`."""
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--clips", type=int, default=2000, help="number of clips, all splits together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample-rate", type=int, default=16000, help="in Hz: 16000 or 32000")
    parser.add_argument("--duration", type=float, default=5.0, help="of a clip, in seconds")
    parser.add_argument("--jobs", type=int, default=None, help="processes; default: one for each core")


def run(args: argparse.Namespace) -> int:
    """Makes the set and prints the manifest folders."""
    try:
        folders = make_folk(args.out, args.clips, args.seed, args.sample_rate, args.duration, args.jobs)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for name, folder in folders.items():
        print(f"datasource.{name}={folder}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
