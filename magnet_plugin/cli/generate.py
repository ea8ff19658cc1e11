"""`magnet generate`: text to WAV files.

Options are checked before torch and AudioCraft are imported.
"""
from __future__ import annotations

import argparse
import time
import typing as tp
from pathlib import Path

from . import model_options, output, recordings
from .errors import out_of_memory_during

if tp.TYPE_CHECKING:
    from ..models.magnet import MAGNeT

DESCRIPTION = """\
Generate clips and write each as a WAV file, with a JSON file of its settings next to it. Text, seed and settings determine
the clip. The names of the WAV files are printed to stdout."""
SHORTER = "give a shorter --duration or --device cpu, or free memory that other processes use"


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet generate`."""
    one = commands.add_parser("generate", parents=[common], help="generate music from text, as WAV files",
                              description=DESCRIPTION)
    one.add_argument("text", nargs="*", metavar="TEXT", help="description of the music; each TEXT gives one clip")
    one.add_argument("--negative", metavar="TEXT", help="description of what the music should not be")
    model_options.add_model(one)
    output.add_output(one)
    one.add_argument("--duration", type=float, metavar="SECONDS", help="length of each clip in seconds; a clip longer than "
                     "the model was trained on is generated in windows that overlap (default: the length the model was "
                     "trained on)")
    one.add_argument("--unconditional", type=int, metavar="N", help="generate N clips without a text, instead of TEXT")
    one.add_argument("--continue-from", type=Path, metavar="AUDIO", help="audio file that each clip begins with and "
                     "continues; TEXT is optional")
    one.add_argument("--prompt-seconds", type=float, metavar="SECONDS",
                     help="use only this much of the beginning of --continue-from (default: the whole file)")
    model_options.add_decoding(one)
    model_options.add_auxiliary(one, prompt=True)
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Generate one clip after another, so that each of them only depends on its text and seed."""
    check(args)
    prompt = read_prompt(args.continue_from, args.prompt_seconds, args.duration) if args.continue_from else None
    model = model_options.load(args)
    if prompt is not None:
        check_prompt(prompt, model.duration)
    texts = args.text or [None] * (args.unconditional or 1)
    first = model_options.first_seed(args)
    for number, text in enumerate(texts):
        seed = first + number
        output.say(f"{number + 1}/{len(texts)} {text or 'without text'} (seed {seed})")
        with out_of_memory_during(f"a clip of {model.duration:g} s, batch size 1", SHORTER):
            generate_one(model, args, text, seed, prompt)
    return 0


def check(args: argparse.Namespace) -> None:
    """Check what can be checked without importing torch, so that a mistyped value is reported at once.

    Raises:
        ValueError: an option is out of range or missing, options exclude each other, or a file does not exist.
    """
    if args.text and args.unconditional is not None:
        raise ValueError("give texts or --unconditional, not both")
    if args.unconditional is not None and args.unconditional < 1:
        raise ValueError(f"--unconditional {args.unconditional} must be at least 1")
    if not args.text and args.unconditional is None and not args.continue_from:
        raise ValueError('nothing to generate: give texts, as in magnet generate "a fast reel played on the violin", '
                         "or --unconditional N, or --continue-from AUDIO")
    if args.negative is not None and not args.text:
        raise ValueError("--negative needs a TEXT to lead to")
    if args.prompt_seconds is not None and not args.continue_from:
        raise ValueError("--prompt-seconds needs --continue-from AUDIO")
    model_options.check(args)
    if args.duration is not None and not args.duration > 0:
        raise ValueError(f"--duration {args.duration:g} must be above 0 seconds")
    if args.continue_from:
        recordings.check_exists("--continue-from", args.continue_from)
    if args.prompt_seconds is not None and not args.prompt_seconds > 0:
        raise ValueError(f"--prompt-seconds {args.prompt_seconds:g} must be above 0")
    output.check(args, len(args.text) or args.unconditional or 1, args.continue_from)


def read_prompt(path: Path, seconds: float | None, duration: float | None) -> recordings.Recording:
    """Read the audio to continue.

    Args:
        path: an audio file that soundfile reads.
        seconds: length to read from its beginning; None reads all of it.
        duration: length of the clip to generate in seconds, the prompt included; None if the model decides it.
    Raises:
        ValueError: the file is not audio, is empty, or leaves nothing to generate.
    """
    prompt = recordings.read("--continue-from", path, seconds)
    if duration is not None:
        check_prompt(prompt, duration)
    return prompt


def check_prompt(prompt: recordings.Recording, duration: float) -> None:
    """Raise ValueError if the prompt leaves nothing of a clip to generate."""
    if prompt.seconds >= duration:
        raise ValueError(f"--continue-from {prompt.path}: the prompt lasts {prompt.seconds:.2f} s and the clip {duration:g} "
                         f"s; give --prompt-seconds between 0 and {duration:g}, or raise --duration")


def generate_one(model: MAGNeT, args: argparse.Namespace, text: str | None, seed: int,
                 prompt: recordings.Recording | None) -> Path:
    """Generate one clip with a progress bar, write its files, and return the path of the audio."""
    from .. import __version__
    from ..models.settings import settings
    started, progress = time.perf_counter(), output.is_watched()
    if prompt is not None:
        wav = model.generate_continuation(prompt.tensor(), prompt.sample_rate, [text], progress, seed=seed,
                                          negative_descriptions=args.negative)
    elif text is None:
        wav = model.generate_unconditional(1, progress, seed=seed)
    else:
        wav = model.generate([text], progress, seed=seed, negative_descriptions=args.negative)
    took = time.perf_counter() - started
    metadata: dict[str, tp.Any] = {"text": text, "negative": args.negative, "seed": seed, "took_seconds": round(took, 3),
                                   "plugin": __version__, "settings": settings(model)}
    if prompt is not None:
        metadata["continued_from"] = {"file": str(prompt.path), "seconds": round(prompt.seconds, 4)}
    name = text or ("continuation" if prompt is not None else "unconditional")
    return output.save(args, name, wav[0].float().cpu().numpy(), model.sample_rate, metadata)
