"""The `magnet` command: parses arguments, runs the command and prints errors.

`magnet --help` imports neither torch nor AudioCraft; each command imports what it needs when it runs.
"""
from __future__ import annotations

import argparse
import dataclasses
import logging
import random
import sys
import time
import typing as tp
import warnings
from pathlib import Path

from .. import environment
from ..decoding.options import CHOICES, GenerationOptions
from ..decoding.rescoring_options import DEFAULT_WEIGHT
from .bench import add_parser as add_bench_parser
from .data import add_parser as add_data_parser
from .doctor import describe
from .grid_report import add_parser as add_report_parser

if tp.TYPE_CHECKING:
    import torch

    from ..models.magnet import MAGNeT

MODEL = "//bundled/magnet-16khz"
#: Arguments of `magnet generate` that `set_generation_params` takes by the same names.
PARAMS = ("temperature", "top_p", "top_k", "max_cfg_coef", "min_cfg_coef", "decoding_steps", "span_arrangement", "duration",
          "engine", "precision", "rescorer", "rescorer_weight", "prompt_model", "prompt_duration")
#: Fields of GenerationOptions by name; the help shows their defaults.
FIELDS = {field.name: field for field in dataclasses.fields(GenerationOptions)}
#: Errors that the user can fix are printed in one line. Any other exception is a bug and keeps its traceback.
EXPECTED = (ValueError, OSError, ModuleNotFoundError)


def steps(text: str) -> list[int]:
    """`20,10,10,10` as numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write one number per codebook, as in 20,10,10,10") from None


def load_model(args: argparse.Namespace) -> MAGNeT:
    """The model that the arguments name, its generation settings in place.

    Raises:
        ValueError: no such model or device, or settings that cannot work.
    """
    import torch
    if args.device:
        try:
            device = torch.device(args.device)
        except RuntimeError as error:
            raise ValueError(f"--device {args.device}: not a device that torch knows") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"--device {args.device}: torch sees no CUDA device; `magnet doctor` tells more")
    print(f"Loading {args.model} …", file=sys.stderr, flush=True)
    environment.defer_imports()
    from .. import MAGNeT
    try:
        model = MAGNeT.get_pretrained(args.model, device=args.device)
    except OSError as error:                        # the hub's client names files, but not the model
        raise ValueError(f"--model {args.model} cannot be loaded") from error
    given = {name: getattr(args, name) for name in PARAMS}
    chosen = {name: value for name, value in given.items() if value is not None}
    model.set_generation_params(use_sampling=not args.greedy, **chosen)
    return model


def check_options(args: argparse.Namespace) -> None:
    """Check what can be checked without importing torch, so that a mistyped value is reported at once.

    Raises:
        ValueError: a decoding option is out of range, or a file or bundled model does not exist.
    """
    given = {"temp" if name == "temperature" else name: getattr(args, name) for name in PARAMS}
    fields = {name: value for name, value in given.items() if name in FIELDS and value is not None}
    GenerationOptions(**fields)
    if args.duration is not None and not args.duration > 0:
        raise ValueError(f"--duration {args.duration:g} must be above 0 seconds")
    if args.continue_from and not args.continue_from.is_file():
        raise ValueError(f"--continue-from {args.continue_from}: no such file")
    if args.prompt_seconds is not None and not args.prompt_seconds > 0:
        raise ValueError(f"--prompt-seconds {args.prompt_seconds:g} must be above 0")
    local = args.model.startswith(("/", "./", "../")) and not args.model.startswith("//")
    if local and not Path(args.model).exists():
        raise ValueError(f"--model {args.model}: no such file or folder")


def read_prompt(path: Path, seconds: float | None, duration: float) -> tuple[torch.Tensor, int]:
    """Audio to continue: [channels, samples], and its sample rate in Hz.

    Args:
        path: an audio file that soundfile reads.
        seconds: take so much of its beginning; None takes all of it.
        duration: of the clip to make, prompt and all, in seconds.
    Raises:
        ValueError: the file is no audio, is empty, or leaves nothing to continue.
    """
    import soundfile
    import torch
    if not path.is_file():
        raise ValueError(f"--continue-from {path}: no such file")
    if seconds is not None and seconds <= 0:
        raise ValueError(f"--prompt-seconds {seconds:g} must be above 0")
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            wav = file.read(-1 if seconds is None else round(seconds * rate), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"--continue-from {path}: not audio that soundfile reads") from error
    length = len(wav) / rate
    if not 0 < length < duration:
        raise ValueError(f"--continue-from {path}: the prompt lasts {length:.2f} s and the clip {duration:g} s; give "
                         f"--prompt-seconds between 0 and {duration:g}")
    return torch.from_numpy(wav.T.copy()), rate


def generate(args: argparse.Namespace) -> int:
    """`magnet generate`: one clip after the other, so that text and seed alone decide each of them."""
    if args.text and args.unconditional is not None:
        raise ValueError("give texts or --unconditional, not both")
    if args.unconditional is not None and args.unconditional < 1:
        raise ValueError(f"--unconditional {args.unconditional} must be at least 1")
    if not args.text and args.unconditional is None and not args.continue_from:
        raise ValueError('nothing to generate: give texts, as in magnet generate "a fast reel played on the violin", '
                         "or --unconditional N, or --continue-from AUDIO")
    if args.prompt_seconds is not None and not args.continue_from:
        raise ValueError("--prompt-seconds needs --continue-from AUDIO")
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


def generate_one(model: MAGNeT, text: str | None, seed: int, out: Path, prompt: tuple[torch.Tensor, int] | None = None,
                 prompt_file: Path | None = None) -> Path:
    """Generate one clip with a progress bar; write it and a JSON under a name of its own. Returns the WAV's path."""
    from .. import __version__
    from ..app import page
    from ..models.magnet import settings
    started = time.perf_counter()
    if prompt is not None:
        wav = model.generate_continuation(prompt[0], prompt[1], [text], progress=True, seed=seed)
    elif text is None:
        wav = model.generate_unconditional(1, progress=True, seed=seed)
    else:
        wav = model.generate([text], progress=True, seed=seed)
    took = time.perf_counter() - started
    facts: dict[str, tp.Any] = {"text": text, "seed": seed, "took_seconds": round(took, 3), "plugin": __version__,
                                "settings": settings(model)}
    if prompt is not None:
        facts["continued_from"] = {"file": str(prompt_file), "seconds": round(prompt[0].shape[-1] / prompt[1], 4)}
    path = page.reserve(out, text or ("continuation" if prompt is not None else "unconditional"))
    page.save_clip(path, wav[0].float().cpu().numpy(), model.sample_rate, facts)
    return path


def export(args: argparse.Namespace) -> int:
    """`magnet export`: a release folder of a trained model."""
    environment.defer_imports()
    from .. import register
    from ..models import checkpoints
    register()
    folder = checkpoints.export(args.source, args.out, half=args.half)
    print(f"Exported {args.source} to {folder}{' in float16' if args.half else ''}:")
    for path in sorted(path for path in folder.iterdir() if path.name in (checkpoints.LM_FILE, checkpoints.CODEC_FILE)):
        print(f"  {path.name:<28} {path.stat().st_size / 1e6:8.2f} MB")
    print("It was reloaded, and its weights are those of the source.")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """`magnet doctor`: what is installed here, and what is amiss."""
    from . import doctor as room
    return room.examine()


def demo(args: argparse.Namespace) -> int:
    """`magnet demo`: fine-tune, export, generate, and a page of it."""
    from ..app.demo import run_demo
    run_demo(args.out, args.model, args.override)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks and all warnings")
    top = argparse.ArgumentParser("magnet", parents=[common],
                                  description="MAGNeT for AudioCraft: text to music by masked decoding.",
                                  epilog="To train a model: dora -P magnet_plugin run solver=magnet")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_generate(commands.add_parser("generate", parents=[common], help="generate WAV files from text"))
    one = commands.add_parser("export", parents=[common], help="export a trained model as a release folder")
    one.add_argument("source", metavar="SOURCE", help="//sig/SIGNATURE, a checkpoint or the folder of a Dora run")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    one.add_argument("--half", action="store_true", help="store the weights in float16, at half the size")
    one.set_defaults(run=export)
    one = commands.add_parser("doctor", parents=[common], help="check versions, devices, kernels and folders")
    one.set_defaults(run=doctor)
    add_data_parser(commands, common)
    add_bench_parser(commands, common)
    add_report_parser(commands, common)
    one = commands.add_parser("demo", parents=[common], help="fine-tune, export, generate clips and write an HTML page")
    one.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="output folder. Default: %(default)s")
    one.add_argument("--model", default=MODEL, help="model to fine-tune. Default: %(default)s")
    one.add_argument("--override", action="append", default=[], metavar="KEY=VALUE",
                     help="config override of the training run; may be repeated")
    one.set_defaults(run=demo)
    return top


def add_generate(one: argparse.ArgumentParser) -> None:
    """Add the arguments of `magnet generate`."""
    one.add_argument("text", nargs="*", metavar="TEXT", help="description of the music; one clip is generated per TEXT")
    one.add_argument("--model", default=MODEL, metavar="NAME",
                     help="//bundled/NAME, //sig/SIGNATURE, a release folder or a Hugging Face name. Default: %(default)s")
    one.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR",
                     help="folder for WAV and JSON files. Default: %(default)s")
    one.add_argument("--seed", type=int,
                     help="seed of the first clip; later clips use seed+1, seed+2, … Random (and printed) by default")
    one.add_argument("--duration", type=float, metavar="SECONDS", help="length of each clip in seconds. Default and "
                     "maximum: the length the model was trained on")
    one.add_argument("--unconditional", type=int, metavar="N", help="generate N clips without a text")
    one.add_argument("--continue-from", type=Path, metavar="AUDIO", help="audio file to continue")
    one.add_argument("--prompt-seconds", type=float, metavar="P",
                     help="use only the first P seconds of --continue-from. Default: the whole file")
    one.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, … Default: cuda if available, otherwise cpu")
    add_decoding(one.add_argument_group("decoding options"))
    group = one.add_argument_group("auxiliary models", "They must use the same codec, and are named as in --model.")
    group.add_argument("--rescorer", metavar="NAME", help="MusicGen, AudioGen or MAGNeT whose token probabilities are mixed "
                       "with the model's own")
    group.add_argument("--rescorer-weight", type=float, metavar="W", help="weight of MAGNeT's own probabilities, from 0 to "
                       f"1. Default: {DEFAULT_WEIGHT} with a rescorer")
    group.add_argument("--prompt-model", metavar="NAME", help="MusicGen or AudioGen that generates the first seconds")
    group.add_argument("--prompt-duration", type=float, metavar="SECONDS", help="seconds generated autoregressively before "
                       "parallel decoding starts. Default: 1 for hybrid models, at most half of the clip")
    one.set_defaults(run=generate)


def add_decoding(group: argparse._ArgumentGroup) -> None:
    """Add the options of `GenerationOptions`, with its types, choices and defaults."""
    def add(option: str, text: str, field: str = "", metavar: str | None = None) -> None:
        name = field or option.removeprefix("--").replace("-", "_")
        default = FIELDS[name].default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        group.add_argument(option, type=steps if isinstance(default, tuple) else type(default), metavar=metavar,
                           choices=CHOICES.get(name), help=f"{text}. Default: {shown}")
    add("--temperature", "softmax temperature at the start of each stage", "temp")
    add("--top-p", "sample from the most likely tokens that together reach this probability; 0 disables it")
    add("--top-k", "sample from the K most likely tokens; 0 uses all of them")
    add("--max-cfg-coef", "guidance scale when everything is masked; 1 means no guidance")
    add("--min-cfg-coef", "guidance scale when nothing is masked")
    add("--decoding-steps", "decoding steps of each codebook", metavar="N,N,…")
    add("--span-arrangement", "overlapping spans (stride1) or spans on a fixed grid (nonoverlap)")
    add("--engine", "fast path (lean), reference path (plain), or the fast path where it supports the model (auto)")
    add("--precision", "precision of the linear layers; values other than model are approximate and faster")
    group.add_argument("--greedy", action="store_true", help="take the most likely tokens instead of sampling")


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 on success, 1 if `doctor` found a problem, 2 after an error that the user can fix (one line on stderr).
    """
    args = parser().parse_args(argv)
    debug = getattr(args, "debug", False)
    if not debug:       # libraries' advice to their programmers
        warnings.simplefilter("ignore")
        logging.getLogger("audiocraft.environment").setLevel(logging.ERROR)
    try:
        return args.run(args)
    except EXPECTED as error:
        if debug:
            raise
        print(f"magnet: error: {describe(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if debug:
            raise
        print("magnet: interrupted", file=sys.stderr)
        return 130
