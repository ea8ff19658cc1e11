"""Settings of clips as files hold them: read from audio or JSON files, tables and command lines.

Importing this module loads nothing heavy, so that a command can check settings first.
"""
from __future__ import annotations

import dataclasses
import json
import re
import typing as tp
from pathlib import Path

from ..decoding.option_types import check_names, real
from ..decoding.options import GenerationOptions

#: Arguments of `set_generation_params` and their types.
TYPES: dict[str, tp.Any] = {
    **{{"temp": "temperature"}.get(field.name, field.name): field.type for field in dataclasses.fields(GenerationOptions)},
    "duration": float, "rescorer": str, "prompt_model": str, "prompt_duration": float, "prompt_cfg_coef": float,
    "prompt_temperature": float, "prompt_top_k": int, "extend_stride": float, "window_order": str}
#: What `models.settings.settings` records about the model.
OF_THE_MODEL = ("model", "sample_rate", "frame_rate", "device", "span_len", "subcodes_context")


def parse(name: str, text: str) -> tp.Any:
    """Convert the text of a setting to its type.

    >>> parse("top_p", "0.5"), parse("decoding_steps", "20 10 10 10"), parse("anneal_temp", "false")
    (0.5, [20, 10, 10, 10], False)

    Args:
        name: one of `TYPES`.
        text: a number, a word, `true` or `false`, or numbers with commas or spaces between them.
    Raises:
        ValueError: there is no such setting, or the text has another type.
    """
    check_names([name], TYPES)
    kind, text = TYPES[name], text.strip()
    try:
        if kind in (int, float, str):
            return kind(text)
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        number = float if name == "guidance_interval" else int
        return [number(part) for part in re.split(r"[,\s]+", text)]
    except (ValueError, KeyError):
        form = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "numbers, such as 20,10,10,10")
        raise ValueError(f"{name}={text!r} must be {form}") from None


def check(arguments: tp.Mapping[str, tp.Any]) -> None:
    """Check arguments of `set_generation_params`, as far as this is possible without a model.

    Raises:
        ValueError: there is no such setting, or its value is invalid.
    """
    check_names(arguments, TYPES)
    fields = {field.name for field in dataclasses.fields(GenerationOptions)}
    renamed = {{"temperature": "temp"}.get(name, name): value for name, value in arguments.items()}
    GenerationOptions(**{name: value for name, value in renamed.items() if name in fields})
    if arguments.get("duration") is not None and not real("duration", arguments["duration"]) > 0:
        raise ValueError(f"duration={arguments['duration']} must be above 0 seconds")


def arguments_of(settings: tp.Mapping[str, tp.Any]) -> dict[str, tp.Any]:
    """Return the arguments of `set_generation_params` that give what `models.settings.settings` returned.

    Raises:
        ValueError: a setting is unknown or invalid.
    """
    found = {name: value for name, value in settings.items() if name not in OF_THE_MODEL}
    if "temp" in found:
        found["temperature"] = found.pop("temp")
    found.pop("prompt_frames", None)                # Those of prompt_duration.
    options = found.pop("prompt_options", None) or {}
    found |= {f"prompt_{new}": options[old] for new, old in (("cfg_coef", "cfg_coef"), ("temperature", "temp"),
                                                              ("top_k", "top_k")) if old in options}
    if not found.get("prompt_duration"):
        found = {name: value for name, value in found.items() if not name.startswith("prompt_") or name == "prompt_duration"}
    if found.get("rescorer") is None:
        found.pop("rescorer_weight", None)          # So that a rescorer that is added has its default weight.
    found = {name: value for name, value in found.items() if value is not None}
    check(found)
    return found


def read_metadata(path: Path) -> dict[str, tp.Any]:
    """Read what was stored with a clip, from its audio or its JSON file.

    Raises:
        ValueError: there is no such file, or it does not hold settings of a clip.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a clip that was generated, or its JSON file")
    text = path.read_text(encoding="utf-8", errors="replace") if path.suffix.lower() == ".json" else _comment(path)
    beside = path.with_suffix(".json")
    if not text and beside.is_file():
        text = beside.read_text(encoding="utf-8", errors="replace")
    try:
        metadata = json.loads(text)
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("settings"), dict):
        raise ValueError(f"{path} holds no settings of a clip; give an audio or JSON file that magnet wrote")
    return metadata


def _comment(path: Path) -> str:
    """Return the comment in an audio file."""
    import soundfile
    try:
        with soundfile.SoundFile(path) as file:
            return file.comment
    except soundfile.LibsndfileError:
        return ""
