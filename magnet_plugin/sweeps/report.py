"""Write the report of a grid: a Markdown page, a CSV file and plots, from what is stored about its jobs.

A JSON file next to them keeps what the report was made from, so that it can be written again without the jobs.
"""
from __future__ import annotations

import dataclasses
import datetime
import json
import typing as tp
from pathlib import Path

from .plot import draw
from .records import Job
from .settings import shared_overrides
from .table import Table, escape, to_csv, to_markdown


class Report(tp.NamedTuple):
    """What `write_report` wrote.

    Args:
        files: The files: page, CSV, record, plots.
        csv: Content of the CSV file.
        warning: Why there are no plots; empty if that needs no explanation.
    """
    files: list[Path]
    csv: str
    warning: str


def write_report(table: Table, notes: tp.Sequence[str], folder: Path, command: str, plots: bool = True,
                 date: str = "") -> Report:
    """Write `NAME.md`, `NAME.csv`, `NAME.json` and plots.

    Args:
        table: The grid.
        notes: Remarks about its jobs.
        folder: Folder to write to; created if needed.
        command: The command that the page names as its origin.
        plots: Whether to draw plots, which needs matplotlib.
        date: When the jobs were read; now by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures: list[tuple[str, str]] = []
    warning = ""
    if plots:
        try:
            pictures = draw(table, folder)
        except ImportError as error:
            warning = str(error)
    date = date or f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    record = {"grid": table.name, "command": command, "date": date, "notes": list(notes),
              "jobs": [dataclasses.asdict(job) for job in table.jobs]}
    files = {f"{table.name}.md": to_page(table, command, notes, pictures, date), f"{table.name}.csv": to_csv(table),
             f"{table.name}.json": json.dumps(record) + "\n"}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    names = [*files, *(name for _, name in pictures)]
    return Report([folder / name for name in names], files[f"{table.name}.csv"], warning)


def rewrite_report(path: Path) -> Report:
    """Write a report again from its JSON file."""
    record = json.loads(path.read_text(encoding="utf-8"))
    table = Table.of(record["grid"], [Job(**job) for job in record["jobs"]])
    return write_report(table, record["notes"], path.parent, record["command"], date=record["date"])


def to_page(table: Table, command: str, notes: tp.Sequence[str], pictures: tp.Sequence[tuple[str, str]], date: str) -> str:
    """Render the Markdown page.

    Args:
        table: The grid.
        command: The command that made the page.
        notes: Remarks about its jobs.
        pictures: Titles and file names.
        date: When the jobs were read.
    """
    lines = [f"# Grid {table.name}", "", *(f"- {line}" for line in summary(table, command, date)), ""]
    base = shared_overrides(table.jobs)
    if base and len(table.jobs) > 1:
        lines += ["All jobs: `" + " ".join(base) + "`", ""]
    if table.settings:
        names = "; ".join(f"{setting.name} is `{setting.key}`" + (f", {setting.unit}" if setting.unit else "")
                          for setting in table.settings)
        lines += [f"{names}. ↓ lower is better, ↑ higher is better; the best value is bold.", ""]
    lines += [to_markdown(table)]
    broken = [f"{job.signature} is broken: {job.fault}" for job in table.jobs if job.fault]
    lines += [f"- {escape(note)}" for note in (*notes, *broken)]
    lines += [part for title, file in pictures for part in ("", f"## {title}", "", f"![{title}]({file})")]
    return "\n".join(lines).rstrip("\n") + "\n"


def summary(table: Table, command: str, date: str) -> list[str]:
    """Return the lines at the top of the page: command, date, job counts, commits, machines and versions."""
    counts = ", ".join(f"{table.count(status)} {status}" for status in ("finished", "incomplete", "missing", "broken"))
    return [f"`{command}`, {date}", f"{len(table.jobs)} jobs: {counts}",
            *provenance(table.jobs)]


def provenance(jobs: tp.Sequence[Job]) -> list[str]:
    """List the commits, machines and versions that the jobs ran with."""
    def distinct(describe: tp.Callable[[dict], tp.Optional[str]]) -> str:
        texts = [describe(job.machine) for job in jobs if job.machine]
        return "; ".join(dict.fromkeys(text for text in texts if text)) or "not known"

    commits = distinct(lambda made: made.get("commit") and made["commit"][:10]
                       + (" with uncommitted changes" if made.get("uncommitted_changes") else ""))
    machines = distinct(lambda made: made.get("measured_on") and f"{made['measured_on']}, {made.get('cores')} CPU cores")
    versions = distinct(lambda made: ", ".join(f"{name} {made[name]}" for name in ("python", "torch", "audiocraft")
                                               if made.get(name)))
    return [f"commit: {commits}", f"run on: {machines}", f"versions: {versions}"]
