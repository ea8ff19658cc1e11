"""A grid as Markdown and as CSV: a row for every job, the missing ones too."""
from __future__ import annotations

import csv
import dataclasses
import io
import math
import typing as tp

from .records import Job, span_of_time
from .rows import Row, columns, metric, row_of
from .settings import Setting, shared, varied


@dataclasses.dataclass(frozen=True)
class Table:
    """A grid's jobs, in what they differ, and their rows.

    Args:
        name: of the grid.
        jobs: in its order.
        settings: in which the jobs differ.
        rows: of the jobs.
    """
    name: str
    jobs: list[Job]
    settings: list[Setting]
    rows: list[Row]

    @classmethod
    def of(cls, name: str, jobs: tp.Sequence[Job]) -> Table:
        return cls(name, list(jobs), varied(jobs), [row_of(job) for job in jobs])

    def best(self, key: str) -> set[int]:
        """Jobs whose value of a metric is the best; none where all are equal, few are known or no direction is better."""
        better = metric(key.split(".", 1)[1]).better
        values = {index: row[key] for index, row in enumerate(self.rows) if math.isfinite(row.get(key, math.nan))}
        if not better or len(set(values.values())) < 2:
            return set()
        best = max(better * value for value in values.values())
        return {index for index, value in values.items() if better * value == best}

    def count(self, status: str) -> int:
        return sum(job.status == status for job in self.jobs)


def cell(value: tp.Optional[float], key: str) -> str:
    """A value as a table shows it; a dash for none.

    >>> cell(2.34567, "valid.ce"), cell(float("nan"), "valid.ce"), cell(None, "valid.ce")
    ('2.346', 'NaN', '–')
    """
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    return format(value, metric(key.split(".", 1)[1]).format)


def epochs(job: Job) -> str:
    """`3 of 10`."""
    if job.stage_alone:
        return "–"
    wanted = job.epochs_wanted
    return f"{job.epochs} of {'?' if wanted is None else wanted}"


def state(job: Job) -> str:
    """A job's state, and for how long nothing was heard of one that is neither finished nor missing."""
    if job.status == "broken":
        return "**broken**"
    if job.status == "missing":
        return "**missing**" if job.state == "missing" else f"**missing**, {job.state}"
    silent = f", silent for {span_of_time(job.quiet)}" if job.status == "half" and job.quiet is not None else ""
    return job.state + silent


def markdown(table: Table) -> str:
    """The table. The best of each column is bold."""
    keys = [key for key in columns(table.rows) if not key.endswith(".duration")]
    trains = any(not job.stage_alone for job in table.jobs)
    heads = [escape(setting.name) for setting in table.settings] or ["job"]
    heads += ["state", *(["epochs"] if trains else [])]
    heads += [f"{key.split('.')[0]} {escape(metric(key.split('.', 1)[1]).head)}" + arrow(key) for key in keys]
    lines = ["| " + " | ".join([*heads, "signature"]) + " |",
             "|" + " --- |" * (max(1, len(table.settings)) + 1) + " ---: |" * (len(keys) + trains) + " --- |"]
    best = {key: table.best(key) for key in keys}
    for index, (job, row) in enumerate(zip(table.jobs, table.rows)):
        cells = [escape(setting.shown(index)) for setting in table.settings] or [" ".join(job.argv or []) or "?"]
        cells += [state(job), *([epochs(job)] if trains else [])]
        for key in keys:
            text = cell(row.get(key), key)
            cells.append(f"**{text}**" if index in best[key] else text)
        lines.append("| " + " | ".join([*cells, f"`{job.signature}`"]) + " |")
    return "\n".join(lines) + "\n"


def arrow(key: str) -> str:
    return {-1: " ↓", 0: "", 1: " ↑"}[metric(key.split(".", 1)[1]).better]


def escape(text: str) -> str:
    return text.replace("|", "\\|")


def legend(table: Table) -> list[str]:
    """What the heads of the settings stand for."""
    return [f"{setting.name} is `{setting.key}`" + (f", {setting.unit}" if setting.unit else "")
            for setting in table.settings]


def document(table: Table, about: tp.Sequence[str], notes: tp.Sequence[str], pictures: tp.Sequence[tuple[str, str]]) -> str:
    """The whole report.

    Args:
        about: lines of its header.
        notes: what a reader has to know of the jobs.
        pictures: titles and file names.
    """
    lines = [f"# Grid {table.name}", "", *(f"- {line}" for line in about), ""]
    base = shared(table.jobs)
    if base and len(table.jobs) > 1:
        lines += ["All jobs: `" + " ".join(base) + "`", ""]
    if table.settings:
        lines += ["; ".join(legend(table)) + ". ↓ less is better, ↑ more is; the best is bold.", ""]
    lines += [markdown(table)]
    broken = [f"{job.signature} is broken: {job.fault}" for job in table.jobs if job.fault]
    lines += [f"- {escape(note)}" for note in (*notes, *broken)]
    lines += [part for title, file in pictures for part in ("", f"## {title}", "", f"![{title}]({file})")]
    return "\n".join(lines).rstrip("\n") + "\n"


def text_csv(table: Table) -> str:
    """The table in full precision: settings by their own names, every metric that any job has, empty where it has none."""
    keys = sorted({key for row in table.rows for key in row})
    shown = columns(table.rows)
    keys = [*shown, *(key for key in keys if key not in shown)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["signature", *(setting.key for setting in table.settings), "state", "status", "epochs", "epochs_wanted",
                     *keys, "fault"])
    for index, (job, row) in enumerate(zip(table.jobs, table.rows)):
        wanted = job.epochs_wanted
        writer.writerow([job.signature, *(setting.values[index] for setting in table.settings), job.state, job.status,
                         job.epochs, "" if wanted is None else wanted,
                         *("" if key not in row else repr(row[key]) for key in keys), job.fault or ""])
    return out.getvalue()
