"""What the commands that edit a recording have in common: `magnet inpaint`, `extend`, `vary` and `loop`.

Arguments and the recording are checked before torch and AudioCraft are imported.
"""
from __future__ import annotations

import argparse
import time
import typing as tp
from pathlib import Path

from ..app import clips
from ..models.wishes import add_wishes
from . import captions, model_options, output, recorded, recordings
from .deferred_imports import defer_imports

if tp.TYPE_CHECKING:
    from ..models.keep_mask import Keep
    from ..models.magnet import MAGNeT

MaskOf = tp.Callable[[float, float], tuple["Keep", float]]
"""From the recording's length in seconds and the codec's frame rate to a mask, and to the length of the clip in seconds."""


class Plan(tp.NamedTuple):
    """A checked edit.

    Attributes:
        method: name of a method of `MAGNeT`.
        arguments: its own arguments.
        mask: what it keeps.
    """
    method: str
    arguments: dict[str, tp.Any]
    mask: MaskOf


def add_parser(commands: tp.Any, common: argparse.ArgumentParser, name: str, text: str, description: str
               ) -> argparse.ArgumentParser:
    """Add a command and return its parser, to which it adds its own options before those of `add_options`."""
    one = commands.add_parser(name, parents=[common], help=text, description=(
        f"{description} The result keeps the recording's sample rate and channels; outside of what is generated, its "
        "samples stay unchanged. It is written as an audio file, with its settings in the file and in a JSON file next to "
        "it."))
    one.add_argument("audio", type=Path, nargs="?", metavar="AUDIO", help="recording to edit: WAV, FLAC, OGG or MP3")
    return one


def add_options(one: argparse.ArgumentParser, preset: str = "--preset") -> None:
    """Add the options that all commands share; `preset` is the name of the one for decoding options."""
    one.add_argument("--text", metavar="TEXT", help="description of the music (default: no text)")
    one.add_argument("--negative", metavar="TEXT", help="description of what the music should not be; needs --text")
    captions.add_options(one)
    one.add_argument("--show-mask", action="store_true", help="print which tokens are kept (█ all, ▒ some, · none), and "
                                                              "exit before the language model is loaded")
    model_options.add_model(one, preset)
    output.add_output(one)
    model_options.add_decoding(one)
    model_options.add_auxiliary(one, prompt=False)


def run(args: argparse.Namespace, plan: tp.Callable[[argparse.Namespace, float], Plan], own: tp.Mapping[str, str]) -> int:
    """Edit the recording.

    Args:
        args: the arguments.
        plan: checks the command's own arguments for a recording of some seconds.
        own: names of the method's arguments, and of those of the command line that they come from.
    """
    fill(args, own)
    check(args)
    recording = recordings.read("AUDIO", args.audio)
    try:
        edit = plan(args, recording.seconds)
    except TypeError as error:
        raise ValueError(f"--settings {args.settings}: the arguments are not those of magnet {args.command}") from error
    if args.show_mask:
        print(picture(args.model, recording, edit.mask))
        return 0
    model, first = model_options.load(args), model_options.first_seed(args)
    done = 0
    try:
        for done in range(args.n):
            output.say(f"{done + 1}/{args.n} {edit.method} {args.audio} (seed {first + done})")
            model.progress_label = f"{done + 1}/{args.n} {edit.method}"
            edit_one(model, args, recording, edit, first + done)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{done} of {args.n} clips are finished") from None
    return 0


def fill(args: argparse.Namespace, own: tp.Mapping[str, str]) -> None:
    """Fill in what `--settings` names and the command line does not."""
    found = recorded.read(args)
    if args.text is None:
        recorded.fill(args, text=found.get("text"), bpm=found.get("bpm"), key=found.get("key"))
    recorded.fill(args, audio=Path(found["source"]) if found.get("source") else None)
    if all(getattr(args, name) is None for name in own.values()):
        for name, value in (found.get("arguments") or {}).items():
            if name in own:
                setattr(args, own[name], value)


def check(args: argparse.Namespace) -> None:
    """Check the shared options.

    Raises:
        ValueError: an option is out of range or missing, or a file does not exist.
    """
    if args.audio is None:
        raise ValueError("give AUDIO, the recording to edit")
    model_options.check(args)
    if args.negative is not None and args.text is None:
        raise ValueError("--negative needs --text, the description to lead to")
    captions.check([args.text], args.bpm, args.key)
    recordings.check_exists("AUDIO", args.audio)
    output.check(args, args.n, args.audio)


def edit_one(model: MAGNeT, args: argparse.Namespace, recording: recordings.Recording, plan: Plan, seed: int) -> None:
    """Make one edit with a progress bar, and write its files."""
    from .. import __version__
    text = add_wishes(args.text, args.bpm, args.key)
    texts = {"descriptions": None if text is None else [text], "negative_descriptions": args.negative}
    started = time.perf_counter()
    edit = getattr(model, plan.method)(recording.tensor(), recording.sample_rate, **plan.arguments, **texts, seed=seed,
                                       progress=output.is_watched())
    took = time.perf_counter() - started
    metadata = {"command": args.command, "source": str(args.audio), "text": args.text, "bpm": args.bpm, "key": args.key,
                "negative": args.negative, "seed": seed, "arguments": plan.arguments, "spans": edit.spans[0],
                "tokens": clips.digest(edit.tokens), "took_seconds": round(took, 3), "plugin": __version__,
                "settings": edit.settings}
    subtype = recording.subtype if recording.subtype in recordings.LOSSLESS else None
    output.save(args, f"{args.audio.stem} {plan.method}", edit.audio[0].float().cpu().numpy(), edit.sample_rate, metadata,
                scale=False, subtype=subtype)
    recorded.compare(args, metadata)


def picture(model: str, recording: recordings.Recording, mask_of: MaskOf) -> str:
    """Draw the mask of an edit. Only the codec of the model is loaded."""
    defer_imports()
    from .. import register
    from ..models.generation import frames
    from ..models.keep_mask import Clip
    from ..models.loaders import load_codec
    register()
    codec = load_codec(model)
    rate = float(codec.frame_rate)
    mask, seconds = mask_of(recording.seconds, rate)
    return mask.picture(Clip(codec.num_codebooks, frames(seconds, rate), rate, audio=recording.tensor()[None],
                             sample_rate=recording.sample_rate))
