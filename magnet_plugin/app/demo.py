"""`magnet demo`: fine-tune a model, export it, load it, generate clips, and write a page that plays them.

Everything is written to one folder: the data set and its tokens, Dora's runs, the release folder, the clips and index.html.
"""
from __future__ import annotations

import contextlib
import time
import typing as tp
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..decoding.options import GenerationOptions, default_steps
from ..metrics.pictures import pyplot
from ..metrics.spectrogram import draw_spectrogram
from . import fine_tuning
from .clips import save_clip, slug
from .fine_tuning import CLIPS, SAMPLE_RATE, SECONDS
from .page import Clip, Section, Table, write_page

if tp.TYPE_CHECKING:
    from dora import XP

    from ..models.magnet import MAGNeT

PROMPTS = (
    "a fast reel in D major played on the violin",
    "a slow air in G major played on the flute",
    "fast banjo jig in A major",
    "a chorale in C major played on the organ",
)
RELEASE = "release"             # folder of the exported model


class StageTimer:
    """Announces stages and measures how long they take.

    Attributes:
        seconds: duration of each stage by name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str, description: str) -> Iterator[None]:
        """Print the description, and measure the body of the `with` statement."""
        print(f"\n== {len(self.seconds) + 1}. {description}", flush=True)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        print(f"   {name}: {self.seconds[name]:.1f} s", flush=True)


def check_arguments(out: Path, model: str) -> None:
    """Check what can be checked before the work starts.

    Raises:
        ValueError: the model does not exist, matplotlib is missing, or `out` is a file.
    """
    try:
        pyplot("the demo's spectrograms need matplotlib")
    except ImportError as error:
        raise ValueError(str(error)) from error
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; give a folder")
    if model.startswith("//bundled/"):
        from ..models.checkpoints import bundled
        bundled(model.removeprefix("//bundled/"))
    elif model.startswith(("/", ".")) and not model.startswith("//") and not Path(model).exists():
        raise ValueError(f"--model {model} does not exist; give a release folder, a checkpoint or a model name")


def make_clips(model: MAGNeT, out: Path, prompts: Sequence[str] = PROMPTS) -> list[Clip]:
    """Generate one clip per prompt with a fixed seed, and write its WAV, JSON and PNG files.

    Args:
        model: the model.
        out: folder of the files; those of an earlier demo are overwritten.
        prompts: descriptions; the seed of each is its index.
    """
    from ..models.settings import settings
    clips = []
    for seed, text in enumerate(prompts):
        print(f"   {seed + 1}/{len(prompts)} {text}", flush=True)
        started = time.perf_counter()
        wav = model.generate([text], progress=True, seed=seed)[0].float().cpu().numpy()        # [channels, samples]
        elapsed = time.perf_counter() - started
        path = out / f"{seed + 1}-{slug(text)}.wav"
        picture = path.with_suffix(".png")
        save_clip(path, wav, model.sample_rate, {"text": text, "seed": seed, "took_seconds": round(elapsed, 3),
                                                 "settings": {**settings(model), "model": Path(model.name).name}})
        draw_spectrogram(picture, wav, model.sample_rate)
        clips.append(Clip(text=text, seed=seed, audio=path.name, picture=picture.name,
                          duration=wav.shape[-1] / model.sample_rate, elapsed=elapsed))
    return clips


def changed_options(options: GenerationOptions) -> list[tuple[str, tp.Any]]:
    """List the decoding settings that differ from their defaults.

    >>> changed_options(GenerationOptions(top_p=0.8))
    [('top_p', 0.8)]
    """
    defaults = GenerationOptions(decoding_steps=default_steps(len(options.decoding_steps)))
    return [(name, value) for name, value in options.plain().items() if value != defaults.plain()[name]]


def describe_clips(model: str, clips: Sequence[Clip]) -> list[str]:
    """Write the introduction of the page: what can be heard and seen.

    Args:
        model: the model that the training run started from.
        clips: the clips on the page.
    """
    return [f"You hear {len(clips)} clips of {clips[0].duration:.0f} seconds. A MAGNeT model generated each of them from "
            f"the text above its player, after it was fine-tuned from {fine_tuning.shorten(model)} on this machine.",
            f"The training data were {CLIPS} clips of traditional tunes, played on synthesised instruments. The pictures "
            "are spectrograms: time runs from left to right, frequency from bottom to top, and bright lines are notes and "
            "their overtones."]


def describe_training(experiment: XP, run: Path, out: Path) -> Section:
    """Describe the training run for the page: losses of its epochs, and the settings that differ from the defaults."""
    losses = [(epoch.number, f"{epoch.train:.3f}", f"{epoch.valid:.3f}", f"{epoch.seconds:.1f}")
              for epoch in fine_tuning.read_epochs(run)]
    return Section("Training run", [
        f"Dora's signature of the run is {run.name}. Settings that are not listed have the defaults of their config.",
        "The loss is the cross entropy of masked tokens, in nats. Validation uses a moving average of the weights."],
        [Table("Loss", losses, ("epoch", "training", "validation", "seconds")),
         Table("Settings", fine_tuning.changed_settings(experiment, out))])


def describe_generation(model: MAGNeT, clips: Sequence[Clip], seconds: tp.Mapping[str, float]) -> Section:
    """Describe for the page how the clips were generated, and how long each stage of the demo took."""
    audio, elapsed = sum(clip.duration for clip in clips), sum(clip.elapsed for clip in clips)
    times = [(name, f"{value:.1f} s") for name, value in seconds.items()]
    return Section("Generation", [
        "Decoding settings that are not listed have their default values. The times are those of the latest demo in this "
        "folder; it reuses a data set and a finished training run that exist.",
        "To generate the first clip again, run this command in the folder of this page:"],
        [Table("Settings", [("model", f"{RELEASE}, exported from the training run"), ("device", model.device),
                            ("seconds of audio per second", f"{audio / elapsed:.2f}"), *changed_options(model.options)]),
         Table("Time", [*times, ("total", f"{sum(seconds.values()):.1f} s")])],
        command=f'magnet generate "{clips[0].text}" --seed {clips[0].seed} --model ./{RELEASE}')


def run_demo(out: Path, model: str, overrides: Sequence[str] = ()) -> Path:
    """Run all stages of the demo.

    Args:
        out: folder for all files; a finished training run in it is not repeated.
        model: the model to fine-tune, a name that `get_pretrained` and `continue_from` both accept.
        overrides: `key=value` settings of the training run; a model of another size needs `model_scale=...`.
    Returns:
        Path of the page.
    Raises:
        ValueError: an argument is invalid, or a stage failed.
    """
    out = Path(out).expanduser().resolve()
    check_arguments(out, model)
    out.mkdir(parents=True, exist_ok=True)
    timer, settings = StageTimer(), fine_tuning.run_settings(out, model, overrides)
    with timer.stage("data set", f"Rendering {CLIPS} clips of folk tunes to {out / 'folk'}"):
        from ..data.folk.dataset import make_folk
        make_folk(out / "folk", clips=CLIPS, seed=0, sample_rate=SAMPLE_RATE, duration=SECONDS)
    with timer.stage("training", f"Fine-tuning {model} on them"):
        fine_tuning.train(out / "dora", settings)
    with timer.stage("imports", "Importing AudioCraft and the plugin"):
        from .. import register
        from ..models import checkpoints
        register()
    with timer.stage("export", "Exporting and checking the trained model"):
        experiment, run = fine_tuning.find_experiment(out / "dora", settings)
        release = checkpoints.export(str(run), out / RELEASE, half=True)
    with timer.stage("loading", f"Loading {release} with audiocraft.models.MAGNeT.get_pretrained"):
        from audiocraft.models import MAGNeT as RegisteredMAGNeT
        magnet = RegisteredMAGNeT.get_pretrained(str(release))
    with timer.stage("generation", f"Generating {len(PROMPTS)} clips on {magnet.device}"):
        clips = make_clips(magnet, out)
    index = write_page(out / "index.html", "MAGNeT demo", describe_clips(model, clips), clips, [
        describe_training(experiment, run, out), describe_generation(magnet, clips, timer.seconds)])
    print(f"\nFinished in {sum(timer.seconds.values()):.0f} s. Open {index} in a browser.", flush=True)
    return index
