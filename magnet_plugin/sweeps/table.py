"""The table of a grid as Markdown and CSV, with one row per job, including those that have not started."""
from __future__ import annotations

import csv
import dataclasses
import io
import math
import typing as tp

from .records import Job, format_duration
from .rows import Row, columns, metric, row_of
from .settings import Setting, varying_settings


@dataclasses.dataclass(frozen=True)
class Table:
    """The jobs of a grid, the settings in which they differ, and their metrics.

    Args:
        name: Name of the grid.
        jobs: Its jobs, in its order.
        settings: The settings in which the jobs differ.
        rows: The metrics of the jobs.
    """
    name: str
    jobs: list[Job]
    settings: list[Setting]
    rows: list[Row]

    @classmethod
    def of(cls, name: str, jobs: tp.Sequence[Job]) -> Table:
        return cls(name, list(jobs), varying_settings(jobs), [row_of(job) for job in jobs])

    def best(self, key: str) -> set[int]:
        """Return the jobs with the best value of a metric.

        Empty if fewer than two distinct finite values are known, or if the metric has no better direction.
        """
        better = metric(key.split(".", 1)[1]).better
        values = {index: row[key] for index, row in enumerate(self.rows) if math.isfinite(row.get(key, math.nan))}
        if not better or len(set(values.values())) < 2:
            return set()
        best = max(better * value for value in values.values())
        return {index for index, value in values.items() if better * value == best}

    def count(self, status: str) -> int:
        return sum(job.status == status for job in self.jobs)


def format_value(value: tp.Optional[float], key: str) -> str:
    """Format a metric for display; a dash if it is missing.

    >>> format_value(2.34567, "valid.ce"), format_value(float("nan"), "valid.ce"), format_value(None, "valid.ce")
    ('2.346', 'NaN', '–')
    """
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    return format(value, metric(key.split(".", 1)[1]).format)


def format_epochs(job: Job) -> str:
    """Format a job's progress: `3 of 10`."""
    if job.single_stage:
        return "–"
    return f"{job.epochs} of {'?' if job.epochs_wanted is None else job.epochs_wanted}"


def format_state(job: Job) -> str:
    """Format a job's state; for an incomplete one, with the time since it last wrote anything."""
    if job.status == "broken":
        return "**broken**"
    if job.status == "missing":
        return "**missing**" if job.state == "missing" else f"**missing**, {job.state}"
    idle = f", no output for {format_duration(job.idle)}" if job.status == "incomplete" and job.idle is not None else ""
    return job.state + idle


def to_markdown(table: Table) -> str:
    """Render the table as Markdown, the best value of each column in bold."""
    keys = [key for key in columns(table.rows) if not key.endswith(".duration")]
    has_training = any(not job.single_stage for job in table.jobs)
    heads = [escape(setting.name) for setting in table.settings] or ["job"]
    heads += ["state", *(["epochs"] if has_training else [])]
    heads += [f"{key.split('.')[0]} {escape(metric(key.split('.', 1)[1]).head)}" + arrow(key) for key in keys]
    lines = ["| " + " | ".join([*heads, "signature"]) + " |",
             "|" + " --- |" * (max(1, len(table.settings)) + 1) + " ---: |" * (len(keys) + has_training) + " --- |"]
    best = {key: table.best(key) for key in keys}
    for index, (job, row) in enumerate(zip(table.jobs, table.rows)):
        cells = [escape(setting.display(index)) for setting in table.settings] or [" ".join(job.argv or []) or "?"]
        cells += [format_state(job), *([format_epochs(job)] if has_training else [])]
        for key in keys:
            text = format_value(row.get(key), key)
            cells.append(f"**{text}**" if index in best[key] else text)
        lines.append("| " + " | ".join([*cells, f"`{job.signature}`"]) + " |")
    return "\n".join(lines) + "\n"


def arrow(key: str) -> str:
    return {-1: " ↓", 0: "", 1: " ↑"}[metric(key.split(".", 1)[1]).better]


def escape(text: str) -> str:
    return text.replace("|", "\\|")


def to_csv(table: Table) -> str:
    """Render all metrics in full precision, settings under their config names; a missing value is an empty field.

    The csv module rather than pandas: a DataFrame does not distinguish a missing metric from one that is NaN.
    """
    shown = columns(table.rows)
    others = sorted({key for row in table.rows for key in row} - set(shown))
    names = ["signature", *(setting.key for setting in table.settings), "state", "status", "epochs", "epochs_wanted", *shown,
             *others, "fault"]
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for index, (job, row) in enumerate(zip(table.jobs, table.rows)):
        own = {name: getattr(job, name) for name in ("signature", "state", "status", "epochs", "epochs_wanted", "fault")}
        writer.writerow({**own, **{setting.key: setting.values[index] for setting in table.settings}, **row})
    return out.getvalue()
