"""Markdown from the records of `magnet bench`: every row that was measured, the unflattering ones too."""
from __future__ import annotations

import json
import statistics
import sys
import typing as tp
from pathlib import Path

from . import plot

INTRO = """# Measured speed

Written by `magnet bench` from the JSON files in this folder; nothing here is typed by hand. All rows of a block were
measured in turn in one process, on the same random weights. *Ratio* is the median over the rounds of (time of the row that
is compared with) / (time of this row), with the least and the largest in brackets: above 1 is faster. *First* is the first
call, with all that is set up in it. *Memory* is the most used above the idle process.
"""


def write(folder: Path) -> Path:
    """Write `bench.md` from all `*.json` in `folder`, and a picture for each table of quality."""
    parts = [INTRO]
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        parts.append(section(record))
        if record["kind"] == "quality":
            try:
                picture = plot.draw(record["cases"][0], path.with_suffix(".png"))
                parts.append(f"![Quality against time]({picture.name})\n")
            except ImportError as error:
                print(f"{path}: {error}", file=sys.stderr)
    target = folder / "bench.md"
    target.write_text("\n".join(parts))
    return target


def section(record: dict[str, tp.Any]) -> str:
    """One record as Markdown."""
    made = record["made_with"]
    versions = ", ".join(f"{name} {made[name]}" for name in ("python", "torch", "audiocraft", "xformers") if made.get(name))
    changed = ", with uncommitted changes" if made.get("uncommitted_changes") else ""
    commit = (made.get("commit") or "unknown")[:10]
    lines = [f"## {record['kind']} on {made['measured_on']}", "",
             f"`{record['command']}`, {record['date']}, {counted(made['cores'], 'core')}, "
             f"{counted(made['threads'], 'thread')}, {versions}, "
             f"commit {commit}{changed}.", ""]
    for found in record["cases"]:
        lines += BLOCKS[record["kind"]](found)
    return "\n".join(lines) + "\n"


def decode_blocks(found: dict[str, tp.Any]) -> list[str]:
    """Whole clips, then single steps."""
    case = found["case"]
    about = f"{case['size']} ({found['parameters'] / 1e6:.0f} M), batch {case['batch']}, {case['length']} frames"
    lines = [f"### {about}: whole clips, steps {case['steps']}", ""]
    lines += rows(found["decode"], found["decode_ratios"], "AudioCraft MAGNeT")
    if case["only"]:
        lines += ["Other peers were left out to save time.", ""]
    for stage in (stage for stage in ("first stage", "later stages") if stage in found):
        lines += [f"### {about}: one guided step of the {stage}, all frames", ""]
        lines += rows(found[stage], found[f"{stage}_ratios"], "bare products")
    return lines


def train_blocks(found: dict[str, tp.Any]) -> list[str]:
    """Updates, then tokens."""
    case = found["case"]
    about = f"{case['size']}, batch {case['batch']}, {case['length']} frames"
    return [f"### {about}: one update", "", *rows(found["update"], found["update_ratios"], "AudioCraft MAGNeT"),
            f"### {about}: tokens of the batch", "", *rows(found["tokens"], found["tokens_ratios"], "bundled codec")]


def rows(found: dict[str, tp.Any], shares: dict[str, tp.Any], against: str) -> list[str]:
    """A table, and below it what did not run."""
    lines = [f"| | seconds | ratio to {against} | first | memory |", "| --- | ---: | ---: | ---: | ---: |"]
    failed = []
    for name, entry in found.items():
        if "error" in entry:
            failed.append(f"{name} does not run here: {entry['error']}")
            continue
        share = "–"
        if name in shares:
            middle, least, most = shares[name]
            share = f"{middle:.2f} ({least:.2f}–{most:.2f})"
        lines.append(f"| {name} | {figure(statistics.median(entry['seconds']))} | {share} | {figure(entry['first'])} | "
                     f"{entry['peak_mib']:.0f} MiB |")
    return [*lines, "", *(line for reason in failed for line in (reason, ""))]


def quality_blocks(found: dict[str, tp.Any]) -> list[str]:
    """Mean over the seeds, least and largest in brackets."""
    lines = [f"### {found['table']}: {found['clips']} held-out captions, seeds {found['seeds']}", ""]
    names = list(dict.fromkeys(name for row in found["rows"].values() for entry in row for name in entry))
    heads = [QUALITY.get(name, name) for name in names]
    lines += ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for name, row in [*((name, [entry]) for name, entry in found["bounds"].items()), *found["rows"].items()]:
        lines.append(f"| {name} | " + " | ".join(spread([entry[key] for entry in row if key in entry], key)
                                                for key in names) + " |")
    return [*lines, ""]


QUALITY = {"accuracy": "instrument accuracy ↑", "frechet": "Fréchet distance ↓", "seconds": "seconds per clip ↓",
           "likelihood": "log-likelihood under the MusicGen, nats per token ↑"}


def spread(values: tp.Sequence[float], key: str) -> str:
    """`0.52 (0.48-0.55)`, one value alone, or a dash for none."""
    if not values:
        return "–"
    show = (lambda value: f"{100 * value:.0f} %") if key == "accuracy" else (lambda value: f"{value:.3g}")
    if len(values) == 1:
        return show(values[0])
    return f"{show(statistics.mean(values))} ({show(min(values))}–{show(max(values))})"


BLOCKS = {"decode": decode_blocks, "train": train_blocks, "quality": quality_blocks}


def counted(number: int, what: str) -> str:
    """`1 core`, `2 cores`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def figure(seconds: float) -> str:
    """Three significant figures, never in exponents."""
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"
