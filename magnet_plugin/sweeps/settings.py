"""In what the jobs of a grid differ, under names that a reader knows."""
from __future__ import annotations

import dataclasses
import math
import re
import typing as tp

from .records import Job, look

#: Setting -> (short name, unit). Others go by the last part of their own name.
NAMES: dict[str, tuple[str, str]] = {
    "masking.span_len": ("span length", "frames"),
    "transformer_lm.subcodes_context": ("context", "frames on either side"),
    "dataset.segment_duration": ("clip length", "s"),
    "generate.lm.gen_duration": ("clip length", "s"),
    "generate.lm.decoding_steps": ("decoding steps", "per codebook"),
    "generate.lm.max_cfg_coef": ("guidance, first", ""),
    "generate.lm.min_cfg_coef": ("guidance, last", ""),
    "generate.lm.temp": ("temperature", ""),
    "generate.lm.top_p": ("top-p", ""),
    "generate.lm.top_k": ("top-k", ""),
    "generate.lm.span_arrangement": ("spans", ""),
    "generate.lm.span_scoring": ("scoring", ""),
    "rescorer.weight": ("MAGNeT's share", ""),
    "model/lm/model_scale": ("scale", ""),
    "model_scale": ("scale", ""),
    "optim.lr": ("learning rate", ""),
    "continue_from": ("model", ""),
    "execute_only": ("stage", ""),
}
#: Values that mean something else than they say.
MEANINGS: dict[tuple[str, str], str] = {("transformer_lm.subcodes_context", "-1"): "all"}
ABSENT = "–"


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting in which jobs differ.

    Args:
        key: its name in the config.
        name: for people.
        unit: of its values; may be empty.
        values: of the jobs in their order, as text.
    """
    key: str
    name: str
    unit: str
    values: tuple[str, ...]

    @property
    def numbers(self) -> tp.Optional[list[float]]:
        """Its values as numbers, NaN for a job without one; None where one of them is no number."""
        try:
            return [math.nan if value == ABSENT else float(value) for value in self.values]
        except ValueError:
            return None

    def shown(self, index: int) -> str:
        """The value of a job for people."""
        return MEANINGS.get((self.key, self.values[index]), self.values[index])

    def told(self, index: int) -> str:
        """Name and value of a job."""
        return f"{self.name} {self.shown(index)}"


def varied(jobs: tp.Sequence[Job]) -> list[Setting]:
    """The settings in which jobs differ, in the order in which they were written. A job that does not name one of them has
    the value of its config."""
    keys = dict.fromkeys(key for job in jobs for key in job.settings)
    found = []
    for key in keys:
        values = tuple(_value(job, key) for job in jobs)
        if len({value for value in values if value != ABSENT}) > 1 or (ABSENT in values and any(
                job.argv is not None and key not in job.settings for job in jobs)):
            found.append((key, values))
    return [Setting(key, *_name(key, [other for other, _ in found]), values) for key, values in found]


def shared(jobs: tp.Sequence[Job]) -> list[str]:
    """The overrides that all jobs have in common."""
    known = [job for job in jobs if job.argv is not None]
    return [part for part in known[0].argv or [] if all(part in (job.argv or []) for job in known)] if known else []


def _value(job: Job, key: str) -> str:
    if job.argv is None:
        return ABSENT
    value = job.settings.get(key)
    if value is None:
        from_config = look(job.cfg, key)
        return ABSENT if from_config is None or isinstance(from_config, (dict, list)) else str(from_config)
    return value.strip("\"'")


def _name(key: str, keys: tp.Sequence[str]) -> tuple[str, str]:
    """Name and unit of a setting; as many parts of its name as tell it from the others."""
    if key in NAMES:
        own = [other for other in keys if NAMES.get(other) == NAMES[key]]
        if len(own) == 1:
            return NAMES[key]
    parts = re.split(r"[./]", key)
    for count in range(1, len(parts) + 1):
        tail = parts[-count:]
        if all(other == key or re.split(r"[./]", other)[-count:] != tail for other in keys):
            break
    return " ".join(tail).replace("_", " "), ""


def label(settings: tp.Sequence[Setting], index: int, signature: str) -> str:
    """A job in words."""
    return ", ".join(setting.told(index) for setting in settings) or signature
