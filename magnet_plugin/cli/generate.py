"""`magnet generate`: text to audio files.

Options are checked before torch and AudioCraft are imported.
"""
from __future__ import annotations

import argparse
import math
import time
import typing as tp
from pathlib import Path

from ..app import clips
from ..models.wishes import add_wishes
from . import captions, model_options, output, recorded, recordings
from .errors import out_of_memory_during
from .requests import Request, add_texts, requests_of

if tp.TYPE_CHECKING:
    from ..models.magnet import MAGNeT

DESCRIPTION = """\
Generate clips and write each as an audio file, with its settings in the file and in a JSON file next to it. Text, seed and
settings determine the clip. The names of the audio files are printed to stdout."""
SHORTER = "give a shorter --duration or --device cpu, or free memory that other processes use"


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet generate`."""
    one = commands.add_parser("generate", parents=[common], help="generate music from text, as audio files",
                              description=DESCRIPTION)
    add_texts(one)
    one.add_argument("--negative", metavar="TEXT", help="description of what the music should not be")
    captions.add_options(one)
    captions.add_timed(one)
    model_options.add_model(one)
    output.add_output(one)
    one.add_argument("--duration", type=float, metavar="SECONDS", help="length of each clip in seconds; a clip longer than "
                     "the model was trained on is generated in windows that overlap (default: the length the model was "
                     "trained on)")
    one.add_argument("--continue-from", type=Path, metavar="AUDIO", help="audio file that each clip begins with and "
                     "continues; TEXT is optional")
    one.add_argument("--prompt-seconds", type=float, metavar="SECONDS",
                     help="use only this much of the beginning of --continue-from (default: the whole file)")
    model_options.add_decoding(one)
    model_options.add_auxiliary(one, prompt=True)
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Generate one clip after another, so that each of them only depends on its text and seed."""
    requests = check(args)
    prompt = recordings.read("--continue-from", args.continue_from, args.prompt_seconds) if args.continue_from else None
    count = len(requests) * args.n if isinstance(requests, list) else None
    shortest = min((length for length in durations(args, requests) if length is not None), default=None)
    check_prompt(prompt, shortest)
    model = model_options.load(args)
    check_prompt(prompt, model.duration if None in durations(args, requests) else None)
    first, done = model_options.first_seed(args), 0
    try:
        for request in requests:
            own = model.with_generation_params(**{**model_options.arguments(args, model), **request.params}) \
                if request.params else model
            for variation in range(args.n):
                seed = first + done if request.seed is None else request.seed + variation
                name = f"{done + 1}{f'/{count}' if count else ''} {request.text or 'without text'}"
                output.say(f"{name} (seed {seed})")
                own.progress_label = name if len(name) <= 40 else f"{name[:39]}…"
                with out_of_memory_during(f"a clip of {own.duration:g} s, batch size 1", SHORTER):
                    generate_one(own, args, request, seed, prompt)
                done += 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{done}{f' of {count}' if count else ''} clips are finished") from None
    return 0


def check(args: argparse.Namespace) -> tp.Iterable[Request]:
    """Check what can be checked without importing torch, so that a mistyped value is reported at once.

    Returns:
        What is asked for.
    Raises:
        ValueError: an option is out of range or missing, options exclude each other, or a file does not exist.
    """
    fill(args)
    requests = requests_of(args)
    texts = [request.text for request in requests] if isinstance(requests, list) else [""]
    if args.negative is not None and None in texts:
        raise ValueError("--negative needs a text to lead to, for each clip")
    captions.check(texts, args.bpm, args.key)
    args.timed = captions.check_timed(args.timed)
    if args.timed and None in texts and not args.continue_from:
        raise ValueError("--at needs a text to be added to, for each clip")
    if args.prompt_seconds is not None and not args.continue_from:
        raise ValueError("--prompt-seconds needs --continue-from AUDIO")
    if args.duration is not None and not 0 < args.duration < math.inf:
        raise ValueError(f"--duration {args.duration:g} must be above 0 seconds")
    model_options.check(args)
    if args.continue_from:
        recordings.check_exists("--continue-from", args.continue_from)
    if args.prompt_seconds is not None and not 0 < args.prompt_seconds < math.inf:
        raise ValueError(f"--prompt-seconds {args.prompt_seconds:g} must be above 0, and finite")
    output.check(args, len(texts) * args.n if isinstance(requests, list) else None, args.continue_from)
    return requests


def fill(args: argparse.Namespace) -> None:
    """Fill in what `--settings` names and the command line does not."""
    found = recorded.read(args)
    if args.text or args.texts or args.unconditional is not None or not found:
        return
    args.text = [found["text"]] if found.get("text") else []
    recorded.fill(args, bpm=found.get("bpm"), key=found.get("key"), timed=found.get("timed"))
    start = found.get("continued_from") or {}
    if start.get("file") and args.continue_from is None:
        args.continue_from = Path(str(start["file"]))
        recorded.fill(args, prompt_seconds=start.get("seconds"))
    if not args.text and not args.continue_from:
        args.unconditional = 1


def durations(args: argparse.Namespace, requests: tp.Iterable[Request]) -> set[float | None]:
    """Return the lengths of the clips in seconds; None stands for the model's own."""
    common = {**args.base, **model_options.params(args)}.get("duration")
    return {request.params.get("duration", common) for request in requests} if isinstance(requests, list) else {common}


def check_prompt(prompt: recordings.Recording | None, duration: float | None) -> None:
    """Raise ValueError if the prompt leaves nothing of a clip to generate; None stands for no prompt, and for any length."""
    if prompt is not None and duration is not None and prompt.seconds >= duration:
        raise ValueError(f"--continue-from {prompt.path}: the prompt lasts {prompt.seconds:.2f} s and the clip {duration:g} "
                         f"s; give --prompt-seconds between 0 and {duration:g}, or raise --duration")


def generate_one(model: MAGNeT, args: argparse.Namespace, request: Request, seed: int,
                 prompt: recordings.Recording | None) -> Path:
    """Generate one clip with a progress bar, write its files, and return the path of the audio."""
    from .. import __version__
    from ..models.settings import settings
    text, negative = request.text, request.negative or args.negative
    wishes: dict[str, tp.Any] = {"bpm": args.bpm if request.bpm is None else request.bpm, "key": request.key or args.key}
    description = add_wishes(text, **wishes)
    common: dict[str, tp.Any] = {"progress": output.is_watched(), "return_tokens": True, "seed": seed}
    led = {"negative_descriptions": negative, "timed_descriptions": args.timed}
    started = time.perf_counter()
    if prompt is not None:
        wav, tokens = model.generate_continuation(prompt.tensor(), prompt.sample_rate, [description], **led, **common)
    elif description is None:
        wav, tokens = model.generate_unconditional(1, **common)
    else:
        wav, tokens = model.generate([description], **led, **common)
    took = time.perf_counter() - started
    metadata: dict[str, tp.Any] = {
        "command": "generate", "text": text, **wishes, "negative": negative, "timed": args.timed or None, "seed": seed,
        "tokens": clips.digest(tokens), "took_seconds": round(took, 3), "plugin": __version__,
        "settings": settings(model)}
    if prompt is not None:
        metadata["continued_from"] = {"file": str(prompt.path), "seconds": prompt.seconds}
    name = text or ("continuation" if prompt is not None else "unconditional")
    path = output.save(args, name, wav[0].float().cpu().numpy(), model.sample_rate, metadata)
    recorded.compare(args, metadata)
    return path
