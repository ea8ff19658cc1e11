"""Options of all commands that run a model: which one, where, and how it decodes.

They are checked before torch and AudioCraft are imported.
"""
from __future__ import annotations

import argparse
import dataclasses
import random
import typing as tp
from pathlib import Path

from ..app import clip_settings
from ..decoding.options import CHOICES, GenerationOptions
from ..decoding.presets import NAMES
from ..decoding.rescoring_options import DEFAULT_WEIGHT
from .deferred_imports import defer_imports
from .device import HELP as DEVICE_HELP
from .device import get_device
from .numbers import integer_from
from .output import say
from .recorded import add_settings

if tp.TYPE_CHECKING:
    from ..models.magnet import MAGNeT

MODEL = "//bundled/magnet-16khz"
#: Options that `set_generation_params` takes by the same names; not every command has all of them.
PARAMS = ("temperature", "top_p", "top_k", "max_cfg_coef", "min_cfg_coef", "decoding_steps", "span_arrangement",
          "span_order", "duration", "engine", "precision", "rescorer", "rescorer_weight", "prompt_model", "prompt_duration")
#: Fields of GenerationOptions by name; the help shows their defaults.
FIELDS = {field.name: field for field in dataclasses.fields(GenerationOptions)}


def add_model(one: argparse.ArgumentParser, preset: str = "--preset") -> None:
    """Add the model, its device, seeds and what sets many options at once; `preset` is the name of the preset's option."""
    add_name_and_device(one)
    one.add_argument("--seed", type=int, metavar="N",
                     help="seed of the first clip; later clips use N+1, N+2, … (default: random, and printed)")
    one.add_argument("--n", type=integer_from(1), default=1, metavar="N", help="number of variations of each clip, which "
                     "have different seeds (default: %(default)s)")
    one.add_argument(preset, dest="decoding_preset", choices=NAMES, help="decoding options: those of the paper for this "
                     "kind of model (paper), with half (fast) or a quarter (draft) of its decoding steps, the best ones "
                     "that are known, which are those of the paper (best), or a lower temperature and weaker guidance, "
                     "for filling in a recording (edit); options that are given have priority")
    add_settings(one)


def add_name_and_device(one: argparse.ArgumentParser) -> None:
    """Add the model and its device."""
    one.add_argument("--model", metavar="NAME",
                     help="//bundled/NAME, //sig/SIGNATURE, a release folder, or the name of a model on Hugging Face "
                          f"(default: {MODEL})")
    one.add_argument("--device", metavar="DEVICE", help=f"{DEVICE_HELP}; mps, an Apple GPU, is experimental")


def add_decoding(one: argparse.ArgumentParser) -> None:
    """Add the options of `GenerationOptions`, with its types, choices and defaults."""
    group = one.add_argument_group("decoding options")

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
    add("--span-order", "fill in the most certain spans first (confidence), or spans in a fixed, evenly spread order in "
        "which nothing is masked again (halton); the latter needs a lower temperature, such as 1")
    add("--engine", "forward pass: the fast path (lean), the slower reference path (plain), or the fast path where it "
        "supports the model (auto)")
    add("--precision", "precision of the linear layers; values other than model are approximate and faster")
    group.add_argument("--greedy", action="store_true", help="take the most likely tokens instead of sampling")


def add_auxiliary(one: argparse.ArgumentParser, prompt: bool) -> None:
    """Add the auxiliary models; those that generate the start of a clip only with `prompt`."""
    group = one.add_argument_group("auxiliary models", "They must use the codec of --model, and are named in the same ways.")
    group.add_argument("--rescorer", metavar="NAME", help="MusicGen, AudioGen or MAGNeT whose token probabilities are mixed "
                       "with those of --model (default: none)")
    group.add_argument("--rescorer-weight", type=float, metavar="W", help="weight of the probabilities of --model, from "
                       f"0 to 1 (default: {DEFAULT_WEIGHT} with --rescorer)")
    if prompt:
        group.add_argument("--prompt-model", metavar="NAME", help="MusicGen or AudioGen that generates the first "
                           "--prompt-duration seconds (default: none)")
        group.add_argument("--prompt-duration", type=float, metavar="SECONDS", help="seconds generated autoregressively "
                           "before parallel decoding starts (default: 1 for hybrid models, at most half of the clip); "
                           "required with --prompt-model")


def steps(text: str) -> list[int]:
    """Parse a list such as `20,10,10,10`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write one number per codebook, as in 20,10,10,10") from None


def params(args: argparse.Namespace) -> dict[str, tp.Any]:
    """Return the options that were given, as arguments of `set_generation_params`."""
    given = {name: getattr(args, name, None) for name in PARAMS}
    return {**{name: value for name, value in given.items() if value is not None},
            **({"use_sampling": False} if args.greedy else {})}


def check(args: argparse.Namespace) -> None:
    """Check the options without importing torch, so that a mistyped value is reported at once.

    Raises:
        ValueError: an option is out of range, or there is no such file.
    """
    clip_settings.check({**args.base, **params(args)})
    args.model = args.model or MODEL
    for option in ("--model", "--rescorer", "--prompt-model"):
        check_exists(getattr(args, option[2:].replace("-", "_"), None) or MODEL, option)


def check_exists(name: str, option: str = "--model") -> None:
    """Raise ValueError if a model is given as a path that does not exist."""
    local = name.startswith(("/", "./", "../")) and not name.startswith("//")
    if local and not Path(name).exists():
        raise ValueError(f"{option} {name}: no such file or folder; give a release folder or the name of a model")


def first_seed(args: argparse.Namespace) -> int:
    """Return the seed of the first clip."""
    return random.SystemRandom().randrange(2 ** 31) if args.seed is None else args.seed


def load(args: argparse.Namespace) -> MAGNeT:
    """Load the model and apply the decoding options.

    Raises:
        ValueError: there is no such model or device, or the options are invalid.
    """
    model = load_model(args.model, args.device)
    model.set_generation_params(**arguments(args, model))
    return model


def load_model(name: str, device_name: str | None) -> MAGNeT:
    """Load a model, see `--model` and `--device`.

    Raises:
        ValueError: there is no such model or device.
    """
    device = get_device(device_name)
    say(f"Loading {name} …")
    defer_imports()
    from .. import MAGNeT
    try:
        return MAGNeT.get_pretrained(name, device=device)
    except OSError as error:                        # The hub's client does not name the model.
        raise ValueError(f"--model {name} cannot be loaded; check the name and the network, or give a local "
                         "folder") from error


def arguments(args: argparse.Namespace, model: MAGNeT) -> dict[str, tp.Any]:
    """Return the arguments of `set_generation_params` that the options stand for."""
    preset = model.preset_arguments(args.decoding_preset) if args.decoding_preset else {}
    return {**args.base, **preset, **params(args)}
