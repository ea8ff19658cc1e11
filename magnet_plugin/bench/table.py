"""Write bench.md from the records of `magnet bench`: every row that was measured, the unfavourable ones too."""
from __future__ import annotations

import statistics
import sys
import typing as tp
from pathlib import Path

from . import plot, records
from .editing import table as editing_table
from .markdown import markdown

INTRO = """# Benchmarks

`magnet bench` writes this page from the JSON files in this folder. The rows of a block were measured in turn, in one process
and on the same random weights, unless the block says otherwise. *Ratio* is the time of the baseline divided by the time of
the row: the median over the rounds, with minimum and maximum in brackets; above 1 is faster than the baseline. *First call*
includes one-time setup. *Memory* is the peak above the idle process.
"""
MACHINE = {"float32": "float32 matrix products {:.3g} GFLOP/s", "bfloat16": "bfloat16 matrix products {:.3g} GFLOP/s",
           "moved": "memory {:.3g} GB/s"}
QUALITY = {"accuracy": "instrument accuracy ↑", "frechet": "Fréchet distance ↓", "seconds": "seconds per clip ↓",
           "likelihood": "log-likelihood under MusicGen, nats per token ↑"}

CODEC = {"kbps": "kb/s", "parameters": "parameters", "notes_recovered": "F1 of notes, against the real clip's ↑",
         "notes_written": "F1 of notes, against the score ↑", "instruments": "instrument accuracy ↑",
         "mel_db": "mel distance, dB ↓", "si_snr_db": "SI-SNR, dB", "seconds": "seconds per clip ↓",
         "cross_entropy": "cross entropy of a small MAGNeT, nats ↓"}


def write(folder: Path) -> Path:
    """Write `bench.md` from all records in `folder`, and a picture for each record of quality."""
    parts = [INTRO]
    for path, record in records.read_all(folder):
        parts.append(section(record))
        if record["kind"] == "quality":
            try:
                picture = plot.draw_quality(record["cases"][0], path.with_suffix(".png"))
                parts.append(f"![Quality against time]({picture.name})\n")
            except ImportError as error:
                print(f"{path}: {error}", file=sys.stderr)
    target = folder / "bench.md"
    target.write_text("\n".join(parts))
    return target


def section(record: dict[str, tp.Any]) -> str:
    """Return one record as Markdown."""
    made = record["made_with"]
    versions = ", ".join(f"{name} {made[name]}" for name in ("python", "torch", "audiocraft", "xformers") if made.get(name))
    changed = ", with uncommitted changes" if made.get("uncommitted_changes") else ""
    commit = (made.get("commit") or "unknown")[:10]
    head = (f"## {record['kind']} on {made['measured_on']}\n\n`{record['command']}`, {record['date']}, "
            f"{count(made['cores'], 'core')}, {count(made['threads'], 'thread')}, {versions}, commit {commit}{changed}.\n")
    return "\n".join([head, *(block for case in record["cases"] for block in BLOCKS[record["kind"]](case))])


def decode_blocks(found: dict[str, tp.Any]) -> list[str]:
    """Return the blocks of whole clips and of single steps."""
    case = found["case"]
    about = f"{case['size']} ({found['parameters'] / 1e6:.0f} M), batch {case['batch']}, {case['length']} frames"
    blocks = [f"### {about}: whole clips, steps {case['steps']}\n", timings(found, "decode", "AudioCraft MAGNeT")]
    if case["only"]:
        blocks.append("The other rows were not measured, to save time.\n")
    for stage in ("first stage", "later stages"):
        if stage in found:
            blocks += [f"### {about}: one guided step of the {stage}, all frames\n",
                       timings(found, stage, "matrix products")]
    return blocks


def train_blocks(found: dict[str, tp.Any]) -> list[str]:
    """Return the blocks of one update, with the machine's rates, and of tokens."""
    case = found["case"]
    about = f"{case['size']}, batch {case['batch']}, {case['length']} frames"
    blocks = [f"### {about}: one update\n", timings(found, "update", "AudioCraft MAGNeT")]
    if "machine" in found:
        rates = [text.format(statistics.median(found["machine"][name]) / 1e9) for name, text in MACHINE.items()]
        blocks.append(f"Rates of this machine at the update's shapes: {', '.join(rates)}.\n")
    return [*blocks, f"### {about}: tokens of the batch\n", timings(found, "tokens", "bundled codec")]


def startup_blocks(found: dict[str, tp.Any]) -> list[str]:
    """Return the block of start-up times."""
    return ["### From the start of a command to its end, each in a new process\n",
            timings(found, "commands", "import audiocraft")]


def timings(found: dict[str, tp.Any], what: str, baseline: str) -> str:
    """Return the table of `found[what]`, and below it what did not run."""
    shares, rows, failed = found[f"{what}_ratios"], [], []
    memory = any("peak_mib" in entry for entry in found[what].values())
    for name, entry in found[what].items():
        if "error" in entry:
            failed.append(f"\n{name} does not run on this machine: {entry['error']}\n")
            continue
        share = "{:.2f} ({:.2f}–{:.2f})".format(*shares[name]) if name in shares else "–"
        rows.append([name, figure(statistics.median(entry["seconds"])), share, figure(entry["first"]),
                     *([f"{entry['peak_mib']:.0f} MiB"] if memory else [])])
    heads = ["", "seconds", f"ratio to {baseline}", "first call, seconds", *(["memory"] if memory else [])]
    return markdown(heads, rows) + "".join(failed)


def quality_blocks(found: dict[str, tp.Any]) -> list[str]:
    """Return the block of means over the seeds, minimum and maximum in brackets."""
    names = list(dict.fromkeys(name for row in found["rows"].values() for entry in row for name in entry))
    rows = [[label, *(spread([entry[name] for entry in entries if name in entry], name) for name in names)]
            for label, entries in [*((label, [entry]) for label, entry in found["bounds"].items()), *found["rows"].items()]]
    return [f"### {found['table']}: {found['clips']} held-out captions, seeds {found['seeds']}\n",
            markdown(["", *(QUALITY.get(name, name) for name in names)], rows)]


def codec_blocks(found: dict[str, tp.Any]) -> list[str]:
    """Return the block of codecs, with the real clips as first row."""
    names = [name for name in CODEC if any(name in row for row in found["rows"].values())]
    rows = [[label, *(f"{row[name]:.3g}" if name in row else "–" for name in names)] for label, row in found["rows"].items()]
    return [f"### {found['clips']} held-out clips\n", markdown(["", *(CODEC[name] for name in names)], rows)]


BLOCKS = {"codec": codec_blocks, "decode": decode_blocks, "train": train_blocks, "quality": quality_blocks,
          "startup": startup_blocks, "editing": editing_table.blocks}


def spread(values: tp.Sequence[float], name: str) -> str:
    """Return `0.52 (0.48–0.55)`: mean, minimum and maximum; only the value if there is one, a dash for none."""
    if not values:
        return "–"
    show = (lambda value: f"{100 * value:.0f} %") if name == "accuracy" else (lambda value: f"{value:.3g}")
    if len(values) == 1:
        return show(values[0])
    return f"{show(statistics.mean(values))} ({show(min(values))}–{show(max(values))})"


def count(number: int, what: str) -> str:
    """Return `1 core`, `2 cores`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def figure(seconds: float) -> str:
    """Return three significant digits, never in scientific notation."""
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"
