"""The tab Generate: from texts to clips."""
import functools
import typing as tp
from pathlib import Path

from .. import clip_settings
from . import making, views
from .fields import Fields, decoding_fields
from .limits import Limits
from .recordings import check_size
from .requests import Decoding, Order, read_duration, read_loaded, read_seed
from .studio import Studio
from .visitors import Visitor

EXAMPLES = ("a fast reel in D major played on the violin", "a slow air in G major played on the flute",
            "a lively jig in A minor played on the accordion")


def start(studio: Studio, visitor: Visitor, text: tp.Any, negative: tp.Any, count: tp.Any, duration: tp.Any, seed: int,
          preset: tp.Any, loaded: tp.Any, temperature: tp.Any, guidance: tp.Any, top_p: tp.Any) -> tp.Any:
    """Check a request and put it into the queue; returns its job.

    Raises:
        ValueError: something in it is invalid; the message names it.
    """
    decoding = Decoding.read(preset, loaded, temperature=temperature, max_cfg_coef=guidance, top_p=top_p)
    order = Order.read(text, negative, count, seed, decoding, studio.limits)
    seconds = read_duration(duration, studio.limits)
    studio.model.with_generation_params(**decoding.arguments(studio.model, duration=seconds))      # Checks the rest.
    return studio.start(visitor, functools.partial(making.generate, studio.model, order, seconds, visitor))


def load_settings(path: tp.Any, limits: Limits) -> tuple[dict[str, tp.Any], dict[str, tp.Any]]:
    """Read the settings of a clip that was generated before, from its audio or JSON file.

    Returns:
        Its metadata, and the arguments of `set_generation_params` in it.
    Raises:
        ValueError: the file holds no settings, or some that are not allowed.
    """
    if not path:
        raise ValueError("no file was chosen")
    file = Path(str(path))
    check_size(file, limits, file.name)
    try:
        metadata = clip_settings.read_metadata(file)
    except RecursionError:
        raise ValueError(f"{file.name} holds no settings of a clip; give an audio or JSON file that magnet wrote") from None
    except ValueError as error:
        raise ValueError(str(error).replace(str(file), file.name)) from None
    return metadata, read_loaded(metadata, limits)


def build(gr: tp.Any, studio: Studio) -> Fields:
    """Build the tab and return its fields."""
    model, limits = studio.model, studio.limits
    text = gr.Textbox(label="Describe the music", lines=3, max_lines=8, elem_id="mg-text",
                      placeholder=f"{EXAMPLES[0]}\nOne clip per line; empty for music without a text",
                      info="Each line is a clip of its own. Ctrl+Enter generates.")
    with gr.Row():
        duration = gr.Slider(0.5, limits.max_seconds, value=min(model.max_duration, limits.max_seconds), step=0.5,
                             label="Length in seconds", elem_id="mg-duration", buttons=[], min_width=280,
                             info=f"Beyond {model.max_duration:g} s, clips are made in windows and appear as they grow.")
        count = gr.Slider(1, min(4, limits.max_clips), value=2, step=1, label="Candidates per text", elem_id="mg-count",
                          buttons=[], min_width=280, info="They differ in their seed.")
    return decoding_fields(gr, "generate", {"text": text, "duration": duration, "count": count}, action="Generate",
                           best=("Best known quality", "best"))


def read(values: tp.Mapping[str, tp.Any]) -> dict[str, tp.Any]:
    """Return the arguments of `start` that the fields hold, and the seed."""
    names = ("text", "negative", "count", "duration", "preset", "loaded", "temperature", "guidance", "top_p")
    return {**{name: values[name] for name in names}, "seed": read_seed(values["seed"], values["locked"])}


def loaded_message(name: str, metadata: tp.Mapping[str, tp.Any]) -> str:
    """Say what was loaded."""
    made = metadata.get("command", "generate")
    extra = "" if made == "generate" else f"; the clip was made by {made}, of which text, seed and settings were loaded"
    return views.message(f"settings of {name} loaded{extra}", "done")
