"""What a visitor asks for, checked: texts, seeds and settings of new clips and of edits.

Whatever a browser sends may arrive here, so that types are checked too.
"""
import dataclasses
import math
import random
import typing as tp

from ...decoding.presets import NAMES
from .. import clip_settings
from .limits import Limits

FROM_FILE = "file"              # the preset that stands for the settings of a loaded file
#: Settings that a file may not bring along: they name models to load.
REFUSED = ("rescorer", "rescorer_weight", "prompt_model", "prompt_duration", "prompt_cfg_coef", "prompt_temperature",
           "prompt_top_k", "engine", "precision")
MAX_SEED = 2 ** 63 - 1


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Settings of decoding.

    Attributes:
        preset: one of `presets.NAMES`, or `FROM_FILE`.
        loaded: arguments of `set_generation_params` from a file.
        changes: arguments that the visitor has given.
    """
    preset: str
    loaded: dict[str, tp.Any]
    changes: dict[str, tp.Any]

    @classmethod
    def read(cls, preset: tp.Any, loaded: tp.Any, **changes: tp.Any) -> "Decoding":
        """Check what the page's fields hold; empty ones are None.

        Raises:
            ValueError: a value is invalid.
        """
        if preset not in (*NAMES, FROM_FILE):
            raise ValueError(f"there is no preset {preset!r}; choose one of the list")
        if preset == FROM_FILE and not loaded:
            raise ValueError("no settings have been loaded; load them from a clip, or choose another preset")
        given = {name: value for name, value in changes.items() if value is not None}
        clip_settings.check(given)
        return cls(str(preset), dict(loaded or {}), given)

    def arguments(self, model: tp.Any, **others: tp.Any) -> dict[str, tp.Any]:
        """Return the arguments of `set_generation_params` for a model."""
        base = self.loaded if self.preset == FROM_FILE else model.preset_arguments(self.preset)
        return {**base, **self.changes, **others}


@dataclasses.dataclass(frozen=True)
class Order:
    """Clips to make.

    Attributes:
        texts: one per clip; None stands for no text.
        negative: what the music should not be.
        seed: of the first clip; each later one has one more.
        decoding: settings.
    """
    texts: list[tp.Optional[str]]
    negative: tp.Optional[str]
    seed: int
    decoding: Decoding

    @classmethod
    def read(cls, text: tp.Any, negative: tp.Any, count: tp.Any, seed: int, decoding: Decoding, limits: Limits) -> "Order":
        """Read one text per line, `count` clips of each.

        Raises:
            ValueError: a value is invalid, or there would be too many clips.
        """
        lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
        negative = str(negative or "").strip() or None
        for line in [*lines, *([negative] if negative else [])]:
            if len(line) > limits.max_text:
                raise ValueError(f"a text has {len(line)} characters; the limit is {limits.max_text}")
        if negative and not lines:
            raise ValueError("a negative text needs a text to lead to; write one")
        number = whole(count, "the number of clips", 1, limits.max_clips)
        total = number * max(len(lines), 1)
        if total > limits.max_clips:
            raise ValueError(f"{len(lines)} texts with {number} clips each are {total} clips; the limit is "
                             f"{limits.max_clips} at a time")
        texts: list[tp.Optional[str]] = [line for line in lines or [None] for _ in range(number)]  # type: ignore[list-item]
        return cls(texts, negative, seed, decoding)


def read_seed(seed: tp.Any, locked: tp.Any) -> int:
    """Return the seed in the field if it is locked, and a new one otherwise.

    Raises:
        ValueError: the field holds no seed.
    """
    if not locked:
        return random.SystemRandom().randrange(2 ** 31)
    return whole(seed, "the seed", 0, MAX_SEED)


def read_duration(seconds: tp.Any, limits: Limits) -> float:
    """Return a length in seconds.

    Raises:
        ValueError: it is no number, or outside of the limits.
    """
    value = number(seconds, "the length")
    if not 0 < value <= limits.max_seconds:
        raise ValueError(f"the length is {value:g} s; give more than 0 and at most {limits.max_seconds:g} s")
    return value


def read_loaded(metadata: tp.Mapping[str, tp.Any], limits: Limits) -> dict[str, tp.Any]:
    """Return the arguments of `set_generation_params` in a clip's metadata, without those that a file may not set.

    Raises:
        ValueError: they are invalid, or ask for more steps than the limit.
    """
    found = clip_settings.arguments_of(metadata["settings"])
    found = {name: value for name, value in found.items() if name not in REFUSED}
    steps = sum(found.get("decoding_steps", ()))
    if steps > limits.max_steps:
        raise ValueError(f"the file asks for {steps} decoding steps; the limit is {limits.max_steps}")
    return found


def number(value: tp.Any, name: str) -> float:
    """Return a finite number; raises ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is {'empty' if value is None else repr(value)}; give a number")
    return float(value)


def whole(value: tp.Any, name: str, lowest: int, highest: int) -> int:
    """Return a whole number from `lowest` to `highest`; raises ValueError otherwise."""
    found = number(value, name)
    if found != int(found) or not lowest <= found <= highest:
        raise ValueError(f"{name} is {found:g}; give a whole number from {lowest} to {highest}")
    return int(value)
