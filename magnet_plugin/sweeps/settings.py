"""Find the settings in which the jobs of a grid differ, and give them readable names."""
from __future__ import annotations

import dataclasses
import math
import re
import typing as tp

from .records import Job, get_value

#: Setting -> (display name, unit). Other settings are displayed by the last parts of their own name.
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
    "generate.lm.span_order": ("order of spans", ""),
    "generate.lm.span_scoring": ("scoring", ""),
    "generate.lm.rescorer_weight": ("MAGNeT weight", ""),
    "model/lm/model_scale": ("scale", ""),
    "model_scale": ("scale", ""),
    "optim.lr": ("learning rate", ""),
    "continue_from": ("model", ""),
    "execute_only": ("stage", ""),
}
#: Display of special values.
MEANINGS: dict[tuple[str, str], str] = {("transformer_lm.subcodes_context", "-1"): "all"}
ABSENT = "–"


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting in which jobs differ.

    Args:
        key: Its name in the config.
        name: Display name.
        unit: Unit of its values; may be empty.
        values: Its value in each job, as text.
    """
    key: str
    name: str
    unit: str
    values: tuple[str, ...]

    @property
    def numbers(self) -> tp.Optional[list[float]]:
        """Its values as numbers, NaN for a job without one; None if a value is not a number."""
        try:
            return [math.nan if value == ABSENT else float(value) for value in self.values]
        except ValueError:
            return None

    def display(self, index: int) -> str:
        """Return the value in one job as it is displayed."""
        return MEANINGS.get((self.key, self.values[index]), self.values[index])


def varying_settings(jobs: tp.Sequence[Job]) -> list[Setting]:
    """Return the settings in which jobs differ, in the order of the grid.

    A job that does not override one of them has the value of its config.
    """
    keys = dict.fromkeys(key for job in jobs for key in job.settings)
    found = []
    for key in keys:
        values = tuple(_value(job, key) for job in jobs)
        if len({value for value in values if value != ABSENT}) > 1 or (ABSENT in values and any(
                job.argv is not None and key not in job.settings for job in jobs)):
            found.append((key, values))
    return [Setting(key, *_name(key, [other for other, _ in found]), values) for key, values in found]


def shared_overrides(jobs: tp.Sequence[Job]) -> list[str]:
    """Return the overrides that all jobs have in common."""
    known = [job for job in jobs if job.argv is not None]
    return [part for part in known[0].argv or [] if all(part in (job.argv or []) for job in known)] if known else []


def _value(job: Job, key: str) -> str:
    if job.argv is None:
        return ABSENT
    value = job.settings.get(key)
    if value is None:
        from_config = get_value(job.cfg, key)
        return ABSENT if from_config is None or isinstance(from_config, (dict, list)) else str(from_config)
    return value.strip("\"'")


def _name(key: str, keys: tp.Sequence[str]) -> tuple[str, str]:
    """Return display name and unit of a setting: as few parts of its key as distinguish it from the others."""
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
    """Describe a job by its settings, or by its signature if there are none."""
    return ", ".join(f"{setting.name} {setting.display(index)}" for setting in settings) or signature
