"""The `magnet` command. Thin: it reads arguments, calls `api` and `checkpoints`, and writes files.

`magnet --help` imports neither torch nor AudioCraft; each command imports what it needs when it runs.
"""
from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import typing as tp
import warnings
from pathlib import Path

from ..decoding.options import CHOICES
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
#: What a user can mend: told in one line. Anything else is a fault of the program and keeps its traceback.
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
    from .. import MAGNeT
    try:
        model = MAGNeT.get_pretrained(args.model, device=args.device)
    except OSError as error:                        # the hub's client names files, but not the model
        raise ValueError(f"--model {args.model} cannot be loaded") from error
    given = {name: getattr(args, name) for name in PARAMS}
    chosen = {name: value for name, value in given.items() if value is not None}
    model.set_generation_params(use_sampling=not args.greedy, **chosen)
    return model


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
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks and warnings")
    top = argparse.ArgumentParser("magnet", parents=[common],
                                  description="MAGNeT for AudioCraft: text to music by masked decoding.",
                                  epilog="Training is Dora's: dora -P magnet_plugin run solver=magnet")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_generate(commands.add_parser("generate", parents=[common], help="text to WAV files"))
    one = commands.add_parser("export", parents=[common], help="write a release folder of a trained model")
    one.add_argument("source", metavar="SOURCE", help="//sig/SIGNATURE, a checkpoint, or a run's folder")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    one.add_argument("--half", action="store_true", help="store float16, half the size")
    one.set_defaults(run=export)
    one = commands.add_parser("doctor", parents=[common], help="versions, devices, attention kernels, what is amiss")
    one.set_defaults(run=doctor)
    add_data_parser(commands, common)
    add_bench_parser(commands, common)
    add_report_parser(commands, common)
    one = commands.add_parser("demo", parents=[common], help="fine-tune for a minute, export, generate, show")
    one.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder for all of it (demo)")
    one.add_argument("--model", default=MODEL, help=f"model to start from ({MODEL})")
    one.add_argument("--override", action="append", default=[], metavar="KEY=VALUE",
                     help="setting of the training run, as a model of another size needs; may be repeated")
    one.set_defaults(run=demo)
    return top


def add_generate(one: argparse.ArgumentParser) -> None:
    """Arguments of `magnet generate`."""
    one.add_argument("text", nargs="*", metavar="TEXT", help="what to play; one clip each")
    one.add_argument("--model", default=MODEL, metavar="NAME",
                     help=f"//bundled/NAME, //sig/SIGNATURE, a release folder or a hub name ({MODEL})")
    one.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR", help="for WAV and JSON (outputs)")
    one.add_argument("--seed", type=int, help="of the first clip, the next has one more; drawn and told if left out")
    one.add_argument("--duration", type=float, metavar="SECONDS", help="up to what the model was trained on (that)")
    one.add_argument("--unconditional", type=int, metavar="N", help="N clips without a text")
    one.add_argument("--continue-from", type=Path, metavar="AUDIO", help="go on from this file")
    one.add_argument("--prompt-seconds", type=float, metavar="P", help="use only so much of its beginning")
    one.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, …; cuda where there is one, if left out")
    group = one.add_argument_group("decoding", "what is left out is as in the paper")
    group.add_argument("--temperature", type=float, help="at the start of each stage (3.0)")
    group.add_argument("--top-p", type=float, help="0 switches it off (0.9)")
    group.add_argument("--top-k", type=int, help="0 keeps all tokens (0)")
    group.add_argument("--max-cfg-coef", type=float, help="guidance while all is masked (10)")
    group.add_argument("--min-cfg-coef", type=float, help="guidance once nothing is (1)")
    group.add_argument("--decoding-steps", type=steps, metavar="N,N,…", help="one per codebook (20,10,10,10)")
    group.add_argument("--span-arrangement", choices=CHOICES["span_arrangement"], help="(stride1)")
    group.add_argument("--engine", choices=CHOICES["engine"], help="lean, the model's own (plain), or what fits (auto)")
    group.add_argument("--precision", choices=CHOICES["precision"], help="of the matrix products; others than model are "
                       "faster and approximate (model)")
    group.add_argument("--greedy", action="store_true", help="take the likeliest tokens instead of sampling")
    group = one.add_argument_group("other models", "on the same codec, by the names that --model takes")
    group.add_argument("--rescorer", metavar="NAME", help="a MusicGen, AudioGen or MAGNeT that has a say in what is kept")
    group.add_argument("--rescorer-weight", type=float, metavar="W", help="MAGNeT's own share, from 0 to 1 (0.7)")
    group.add_argument("--prompt-model", metavar="NAME", help="a MusicGen or AudioGen that writes the first seconds")
    group.add_argument("--prompt-duration", type=float, metavar="SECONDS", help="so many; also of a hybrid model (1)")
    one.set_defaults(run=generate)


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        0, or 1 where `doctor` found a problem, or 2 after an error that the user can mend (told on stderr in one line).
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
