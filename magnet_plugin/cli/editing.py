"""What the commands that edit a recording have in common: `magnet inpaint`, `extend`, `vary` and `loop`.

Arguments and the recording are checked before torch and AudioCraft are imported.
"""
from __future__ import annotations

import argparse
import typing as tp
from pathlib import Path

from . import model_options, output, recordings
from .deferred_imports import defer_imports

if tp.TYPE_CHECKING:
    from ..models.keep_mask import Keep

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
        "samples stay unchanged. It is written as a WAV file, with a JSON file of its settings next to it."))
    one.add_argument("audio", type=Path, metavar="AUDIO", help="recording to edit: WAV, FLAC, OGG or MP3")
    return one


def add_options(one: argparse.ArgumentParser) -> None:
    """Add the options that all commands share."""
    one.add_argument("--text", metavar="TEXT", help="description of the music (default: no text)")
    one.add_argument("--negative", metavar="TEXT", help="description of what the music should not be; needs --text")
    one.add_argument("--show-mask", action="store_true", help="print which tokens are kept (█ all, ▒ some, · none), and "
                                                              "exit before the language model is loaded")
    model_options.add_model(one)
    output.add_output(one)
    model_options.add_decoding(one)
    model_options.add_auxiliary(one, prompt=False)


def run(args: argparse.Namespace, plan: tp.Callable[[argparse.Namespace, float], Plan]) -> int:
    """Edit the recording.

    Args:
        args: the arguments.
        plan: checks the command's own arguments for a recording of some seconds.
    """
    check(args)
    recording = recordings.read("AUDIO", args.audio)
    method, arguments, mask = plan(args, recording.seconds)
    if args.show_mask:
        print(picture(args.model, recording, mask))
        return 0
    model, seed = model_options.load(args), model_options.first_seed(args)
    output.say(f"{method} {args.audio} (seed {seed})")
    texts = {"descriptions": None if args.text is None else [args.text], "negative_descriptions": args.negative}
    edit = getattr(model, method)(recording.tensor(), recording.sample_rate, **arguments, **texts, seed=seed,
                                  progress=output.is_watched())
    metadata = {"method": method, "source": str(args.audio), "text": args.text, "negative": args.negative, "seed": seed,
                "arguments": arguments, "spans": edit.spans[0], "settings": edit.settings}
    subtype = recording.subtype if recording.subtype in recordings.LOSSLESS else None
    output.save(args, f"{args.audio.stem} {method}", edit.audio[0].float().cpu().numpy(), edit.sample_rate, metadata,
                scale=False, subtype=subtype)
    return 0


def check(args: argparse.Namespace) -> None:
    """Check the shared options.

    Raises:
        ValueError: an option is out of range or missing, or a file does not exist.
    """
    model_options.check(args)
    if args.negative is not None and args.text is None:
        raise ValueError("--negative needs --text, the description to lead to")
    recordings.check_exists("AUDIO", args.audio)
    output.check(args, 1, args.audio)


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
