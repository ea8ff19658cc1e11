"""`magnet generate`: text to WAV files.

Options are checked before torch and AudioCraft are imported.
"""
from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import time
import typing as tp
from pathlib import Path

from ..decoding.options import CHOICES, GenerationOptions
from ..decoding.rescoring_options import DEFAULT_WEIGHT
from .deferred_imports import defer_imports
from .device import HELP as DEVICE_HELP
from .device import get_device

if tp.TYPE_CHECKING:
    import torch

    from ..models.magnet import MAGNeT

DESCRIPTION = """\
Generate clips and write each as a WAV file, with a JSON file of its settings next to it. Text, seed and settings determine
the clip. The names of the WAV files are printed to stdout."""
MODEL = "//bundled/magnet-16khz"
#: Options that `set_generation_params` takes by the same names.
PARAMS = ("temperature", "top_p", "top_k", "max_cfg_coef", "min_cfg_coef", "decoding_steps", "span_arrangement", "duration",
          "engine", "precision", "rescorer", "rescorer_weight", "prompt_model", "prompt_duration")
#: Fields of GenerationOptions by name; the help shows their defaults.
FIELDS = {field.name: field for field in dataclasses.fields(GenerationOptions)}


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet generate`."""
    one = commands.add_parser("generate", parents=[common], help="generate music from text, as WAV files",
                              description=DESCRIPTION)
    one.add_argument("text", nargs="*", metavar="TEXT", help="description of the music; each TEXT gives one clip")
    one.add_argument("--model", default=MODEL, metavar="NAME",
                     help="//bundled/NAME, //sig/SIGNATURE, a release folder, or the name of a model on Hugging Face "
                          "(default: %(default)s)")
    one.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR",
                     help="folder for WAV and JSON files; created if needed (default: %(default)s)")
    one.add_argument("--seed", type=int, metavar="N",
                     help="seed of the first clip; later clips use N+1, N+2, … (default: random, and printed)")
    one.add_argument("--duration", type=float, metavar="SECONDS", help="length of each clip in seconds "
                     "(default and maximum: the length the model was trained on)")
    one.add_argument("--unconditional", type=int, metavar="N", help="generate N clips without a text, instead of TEXT")
    one.add_argument("--continue-from", type=Path, metavar="AUDIO", help="audio file that each clip begins with and "
                     "continues; TEXT is optional")
    one.add_argument("--prompt-seconds", type=float, metavar="SECONDS",
                     help="use only this much of the beginning of --continue-from (default: the whole file)")
    one.add_argument("--device", metavar="DEVICE", help=f"{DEVICE_HELP}; mps, an Apple GPU, is experimental")
    add_decoding(one.add_argument_group("decoding options"))
    group = one.add_argument_group("auxiliary models", "They must use the codec of --model, and are named in the same ways.")
    group.add_argument("--rescorer", metavar="NAME", help="MusicGen, AudioGen or MAGNeT whose token probabilities are mixed "
                       "with those of --model (default: none)")
    group.add_argument("--rescorer-weight", type=float, metavar="W", help="weight of the probabilities of --model, from "
                       f"0 to 1 (default: {DEFAULT_WEIGHT} with --rescorer)")
    group.add_argument("--prompt-model", metavar="NAME", help="MusicGen or AudioGen that generates the first "
                       "--prompt-duration seconds (default: none)")
    group.add_argument("--prompt-duration", type=float, metavar="SECONDS", help="seconds generated autoregressively before "
                       "parallel decoding starts (default: 1 for hybrid models, at most half of the clip); required with "
                       "--prompt-model")
    one.set_defaults(run=run)


def add_decoding(group: argparse._ArgumentGroup) -> None:
    """Add the options of `GenerationOptions`, with its types, choices and defaults."""
    def add(option: str, text: str, field: str = "", metavar: str | None = None) -> None:
        name = field or option.removeprefix("--").replace("-", "_")
        default = FIELDS[name].default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        group.add_argument(option, type=steps if isinstance(default, tuple) else type(default), metavar=metavar,
                           choices=CHOICES.get(name), help=f"{text} (default: {shown})")
    add("--temperature", "softmax temperature at the start of each stage, above 0", "temp", "T")
    add("--top-p", "sample from the most likely tokens that together reach this probability, from 0 to 1; 0 disables "
        "it", metavar="P")
    add("--top-k", "sample from the K most likely tokens; 0 uses all of them", metavar="K")
    add("--max-cfg-coef", "guidance scale when everything is masked; 1 means no guidance", metavar="SCALE")
    add("--min-cfg-coef", "guidance scale when nothing is masked", metavar="SCALE")
    add("--decoding-steps", "number of decoding steps of each codebook, separated by commas", metavar="N,N,…")
    add("--span-arrangement", "overlapping spans (stride1) or spans on a fixed grid (nonoverlap)")
    add("--engine", "forward pass: the fast path (lean), the slower reference path (plain), or the fast path where it "
        "supports the model (auto)")
    add("--precision", "precision of the linear layers; values other than model are approximate and faster")
    group.add_argument("--greedy", action="store_true", help="take the most likely tokens instead of sampling")


def steps(text: str) -> list[int]:
    """Parse a list such as `20,10,10,10`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write one number per codebook, as in 20,10,10,10") from None


def run(args: argparse.Namespace) -> int:
    """Generate one clip after another, so that each of them only depends on its text and seed."""
    check_options(args)
    model = load_model(args)
    prompt = read_prompt(args.continue_from, args.prompt_seconds, model.duration) if args.continue_from else None
    texts = args.text or [None] * (args.unconditional or 1)
    first = random.SystemRandom().randrange(2 ** 31) if args.seed is None else args.seed
    for number, text in enumerate(texts):
        seed = first + number
        print(f"{number + 1}/{len(texts)} {text or 'without text'} (seed {seed})", file=sys.stderr, flush=True)
        print(generate_one(model, text, seed, args.out, prompt, args.continue_from), flush=True)
    return 0


def check_options(args: argparse.Namespace) -> None:
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
    if args.prompt_seconds is not None and not args.continue_from:
        raise ValueError("--prompt-seconds needs --continue-from AUDIO")
    given = {"temp" if name == "temperature" else name: getattr(args, name) for name in PARAMS}
    fields = {name: value for name, value in given.items() if name in FIELDS and value is not None}
    GenerationOptions(**fields)
    if args.duration is not None and not args.duration > 0:
        raise ValueError(f"--duration {args.duration:g} must be above 0 seconds")
    if args.continue_from and not args.continue_from.is_file():
        raise ValueError(f"--continue-from {args.continue_from}: no such file; give an audio file")
    if args.prompt_seconds is not None and not args.prompt_seconds > 0:
        raise ValueError(f"--prompt-seconds {args.prompt_seconds:g} must be above 0")
    local = args.model.startswith(("/", "./", "../")) and not args.model.startswith("//")
    if local and not Path(args.model).exists():
        raise ValueError(f"--model {args.model}: no such file or folder; give a release folder or the name of a model")


def load_model(args: argparse.Namespace) -> MAGNeT:
    """Load the model of the arguments and apply the decoding options.

    Raises:
        ValueError: there is no such model or device, or the options are invalid.
    """
    device = get_device(args.device)
    print(f"Loading {args.model} …", file=sys.stderr, flush=True)
    defer_imports()
    from .. import MAGNeT
    try:
        model = MAGNeT.get_pretrained(args.model, device=device)
    except OSError as error:                        # The hub's client does not name the model.
        raise ValueError(f"--model {args.model} cannot be loaded; check the name and the network, or give a local "
                         "folder") from error
    given = {name: getattr(args, name) for name in PARAMS}
    chosen = {name: value for name, value in given.items() if value is not None}
    model.set_generation_params(use_sampling=not args.greedy, **chosen)
    return model


def read_prompt(path: Path, seconds: float | None, duration: float) -> tuple[torch.Tensor, int]:
    """Read the audio to continue: [channels, samples], and its sample rate in Hz.

    Args:
        path: an audio file that soundfile reads.
        seconds: length to read from its beginning; None reads all of it.
        duration: length of the clip to generate in seconds, the prompt included.
    Raises:
        ValueError: the file is not audio, is empty, or leaves nothing to generate.
    """
    import soundfile
    import torch
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            wav = file.read(-1 if seconds is None else round(seconds * rate), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"--continue-from {path}: soundfile cannot read this file as audio; convert it to WAV or "
                         "FLAC") from error
    length = len(wav) / rate
    if not 0 < length < duration:
        raise ValueError(f"--continue-from {path}: the prompt lasts {length:.2f} s and the clip {duration:g} s; give "
                         f"--prompt-seconds between 0 and {duration:g}")
    return torch.from_numpy(wav.T.copy()), rate


def generate_one(model: MAGNeT, text: str | None, seed: int, out: Path, prompt: tuple[torch.Tensor, int] | None = None,
                 prompt_file: Path | None = None) -> Path:
    """Generate one clip with a progress bar, write WAV and JSON under a new name, and return the WAV's path."""
    from .. import __version__
    from ..app import clips
    from ..models.settings import settings
    started = time.perf_counter()
    if prompt is not None:
        wav = model.generate_continuation(prompt[0], prompt[1], [text], progress=True, seed=seed)
    elif text is None:
        wav = model.generate_unconditional(1, progress=True, seed=seed)
    else:
        wav = model.generate([text], progress=True, seed=seed)
    took = time.perf_counter() - started
    metadata: dict[str, tp.Any] = {"text": text, "seed": seed, "took_seconds": round(took, 3), "plugin": __version__,
                                "settings": settings(model)}
    if prompt is not None:
        metadata["continued_from"] = {"file": str(prompt_file), "seconds": round(prompt[0].shape[-1] / prompt[1], 4)}
    path = clips.reserve(out, text or ("continuation" if prompt is not None else "unconditional"))
    clips.save_clip(path, wav[0].float().cpu().numpy(), model.sample_rate, metadata)
    return path
