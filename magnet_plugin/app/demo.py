"""`magnet demo`: fine-tune, export, load, generate, and a page to hear it on. `make demo` is this.

All that it makes lies in one folder: data set and tokens, Dora's runs, release folder, clips and index.html.
"""
from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
import typing as tp
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import environment
from ..metrics.pictures import pyplot
from . import page

if tp.TYPE_CHECKING:
    from ..models.magnet import MAGNeT

CLIPS, SAMPLE_RATE, SECONDS = 200, 16000, 5.0      # of the data set; Hz; length of each clip
PROMPTS = (
    "a fast reel in D major played on the violin",
    "a slow air in G major played on the flute",
    "fast banjo jig in A major",
    "a chorale in C major played on the organ",
)
#: About a minute on two cores. It starts from a trained model, hence the low rate and the short warm-up. Validation
#: takes four batches, as each batch scores one codebook.
TRAINING = (
    "optim.epochs=4", "optim.updates_per_epoch=15", "optim.lr=2e-4", "schedule.cosine.warmup=10",
    "logging.log_updates=5", "dataset.batch_size=8", "dataset.num_workers=0", "dataset.valid.num_samples=32",
    "dataset.evaluate.num_samples=32", "dataset.evaluate.batch_size=8", "dataset.generate.num_samples=2",
    "dataset.generate.batch_size=2",
)


class Epoch(tp.NamedTuple):
    """Its number, losses in nats per masked token, and how long training and validation took, in seconds."""
    number: int
    train: float
    valid: float
    seconds: float


class Clock:
    """Names each stage as it starts and keeps how long it took, in seconds."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """Time a stage; `what` is told at its start."""
        print(f"\n== {len(self.times) + 1}. {what}", flush=True)
        started = time.perf_counter()
        yield
        self.times[name] = time.perf_counter() - started
        print(f"   {name}: {self.times[name]:.1f} s", flush=True)


def quoted(value: str | Path) -> str:
    """A value as Hydra reads it literally, whatever characters a path has.

    >>> print(quoted("/home/me/my runs"))
    '/home/me/my runs'
    """
    return "'" + str(value).replace("'", "\\'") + "'"


def training_settings(out: Path, model: str, overrides: Sequence[str]) -> list[str]:
    """Arguments of `dora run` with data and tokens in `out`; `overrides` come last and win."""
    if os.path.exists(model):
        model = os.path.abspath(model)              # the run changes folders
    return ["solver=magnet", f"continue_from={quoted(model)}", f"datasource.folk.out={quoted(out / 'folk')}",
            f"cache.tokens={quoted(out / 'tokens')}",
            f"datasource.folk.clips={CLIPS}", f"datasource.folk.duration={SECONDS:g}", *TRAINING, *overrides]


def train(runs: Path, settings: Sequence[str]) -> None:
    """`dora run` with Dora's folder at `runs`, its output shown; a run that is there is resumed, a finished one left.

    Raises:
        ValueError: the run failed; its own output says why.
    """
    command = [sys.executable, "-m", "dora", "-P", "magnet_plugin", "run", *settings]
    print(f"   AUDIOCRAFT_DORA_DIR={shlex.quote(str(runs))} {shlex.join(['dora', *command[3:]])}", flush=True)
    # The run changes folders; what was on the path of this process has to stay on its path, written out in full.
    path = os.pathsep.join([str(environment.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, env={**os.environ, "AUDIOCRAFT_DORA_DIR": str(runs), "PYTHONPATH": path})
    if done.returncode:
        raise ValueError(f"the training run ended with exit code {done.returncode}; its output above says why")


def find_run(runs: Path, settings: Sequence[str]) -> Path:
    """Folder of the run with these settings, which is named by Dora's signature.

    Raises:
        ValueError: it is not there or has no epoch behind it.
    """
    from .. import train as entry
    folder = runs / "xps" / entry.main.get_xp(list(settings)).sig
    if not (folder / "history.json").is_file():
        raise ValueError(f"{folder} holds no finished epoch; delete it and start again")
    return folder


def losses(run: Path) -> list[Epoch]:
    """What a run's history.json holds of each epoch."""
    history = json.loads((run / "history.json").read_text())
    return [Epoch(number + 1, epoch["train"]["ce"], epoch["valid"]["ce"],
                  epoch["train"]["duration"] + epoch["valid"]["duration"]) for number, epoch in enumerate(history)]


def check(out: Path, model: str) -> None:
    """Fail before the work instead of after it.

    Raises:
        ValueError: the model is not there, matplotlib is missing, or `out` is a file.
    """
    try:
        pyplot("the demo's spectrograms need matplotlib")
    except ImportError as error:
        raise ValueError(str(error)) from error
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    if model.startswith("//bundled/"):
        from ..models.checkpoints import bundled
        bundled(model.removeprefix("//bundled/"))
    elif model.startswith(("/", ".")) and not model.startswith("//") and not Path(model).exists():
        raise ValueError(f"--model {model}: nothing is there")


def make_clips(model: MAGNeT, out: Path, prompts: Sequence[str] = PROMPTS) -> list[page.Clip]:
    """Generate each prompt with a progress bar and a fixed seed; write WAV, JSON and picture.

    A clip of an earlier demo in the same folder is replaced.
    """
    from ..models.magnet import settings
    clips = []
    for number, text in enumerate(prompts):
        print(f"   {number + 1}/{len(prompts)} {text}", flush=True)
        started = time.perf_counter()
        wav = model.generate([text], progress=True, seed=number)[0].float().cpu().numpy()      # [channels, samples]
        took = time.perf_counter() - started
        path = out / f"{number + 1}-{page.slug(text)}.wav"
        page.save_clip(path, wav, model.sample_rate, {"text": text, "seed": number, "took_seconds": round(took, 3),
                                                      "settings": settings(model)})
        page.draw_spectrogram(path.with_suffix(".png"), wav, model.sample_rate)
        clips.append(page.Clip(text=text, seed=number, audio=path.name, picture=path.with_suffix(".png").name,
                               duration=wav.shape[-1] / model.sample_rate, took=took))
    return clips


def tables(model: MAGNeT, clips: Sequence[page.Clip], times: dict[str, float],
           history: Sequence[Epoch], training: Sequence[str]) -> list[page.Table]:
    """Losses, times and settings, for the page."""
    from ..models.magnet import settings
    audio, took = sum(clip.duration for clip in clips), sum(clip.took for clip in clips)
    rows: list[page.Row] = [(name, f"{seconds:.1f} s") for name, seconds in times.items()]
    rows += [("all together", f"{sum(times.values()):.1f} s"),
             ("speed", f"{audio / took:.2f} seconds of audio per second")]
    return [
        page.Table("Loss", [(epoch.number, f"{epoch.train:.3f}", f"{epoch.valid:.3f}", f"{epoch.seconds:.1f}")
                            for epoch in history], ("epoch", "training", "validation", "seconds"),
                   "Cross entropy of masked tokens in nats, from the run's history.json. Validation takes an average "
                   "over the updates, so its first line is still close to the model that the run started from."),
        page.Table("Time", rows, note="Of the latest demo in this folder. A data set that is there is not rendered "
                   "again, and a finished run is not trained again."),
        page.Table("Settings of generation", [(name, value) for name, value in settings(model).items()]),
        page.Table("Settings of training", [item.partition("=")[::2] for item in training]),
    ]


def run_demo(out: Path, model: str, overrides: Sequence[str] = ()) -> Path:
    """Data set, training, export, loading, clips, page.

    Args:
        out: folder for all of it; a finished run in it is not trained again.
        model: what to fine-tune: what both `continue_from` and `get_pretrained` take.
        overrides: `key=value` settings of the run, as a model of another size needs.
    Returns:
        The page.
    Raises:
        ValueError: something is missing, or a stage failed.
    """
    out = Path(out).expanduser().resolve()
    check(out, model)
    out.mkdir(parents=True, exist_ok=True)
    data, runs, clock = out / "folk", out / "dora", Clock()
    training = training_settings(out, model, overrides)
    with clock.stage("render", f"Rendering {CLIPS} clips of folk tunes to {data}"):
        from ..data.folk.dataset import make_folk
        make_folk(data, clips=CLIPS, seed=0, sample_rate=SAMPLE_RATE, duration=SECONDS)
    with clock.stage("train", f"Fine-tuning {model} on them with `dora run`"):
        train(runs, training)
    with clock.stage("import", "Importing AudioCraft, the plugin in its place"):
        from .. import register
        from ..models import checkpoints
        register()
    with clock.stage("export", "Exporting the run as a release folder, reloaded and compared"):
        run = find_run(runs, training)
        release = checkpoints.export(str(run), out / "release", half=True)
    with clock.stage("load", f"Loading {release} by audiocraft.models.MAGNeT.get_pretrained"):
        from audiocraft.models import MAGNeT as Model
        magnet = Model.get_pretrained(str(release))
    with clock.stage("generate", f"Generating {len(PROMPTS)} clips on {magnet.device}"):
        clips = make_clips(magnet, out)
    intro = [f"Four clips by a MAGNeT that was fine-tuned from {model} on this machine by Dora's run "
             f"{run.name}, then exported and loaded again. The texts and seeds are fixed.",
             "Each clip is decoded in parallel from masked tokens, codebook after codebook; the lines in a picture are "
             "notes and their overtones."]
    index = page.write_page(out / "index.html", "MAGNeT demo", intro, clips,
                            tables(magnet, clips, clock.times, losses(run), training))
    print(f"\nDone in {sum(clock.times.values()):.0f} s. The page: {index}", flush=True)
    return index
