"""Pictures of benchmarks: quality against time."""
from __future__ import annotations

import statistics
import typing as tp
from pathlib import Path

from ..metrics.pictures import pyplot

PANELS = (("accuracy", "instrument accuracy"), ("frechet", "Fréchet distance (lower is better)"),
          ("likelihood", "log-likelihood under MusicGen"))
FAMILIES = (("rescored", "#d1495b"), ("MusicGen prompt", "#edae49"), ("hybrid", "#00798c"), ("MusicGen only", "#666666"),
            ("", "#30638e"))


def draw_quality(found: dict[str, tp.Any], target: Path) -> Path:
    """Draw the rows of a quality record: means over the seeds, with bars from minimum to maximum.

    Args:
        found: the case of a record of `magnet bench quality`.
        target: picture file.
    Raises:
        ImportError: if matplotlib is not installed.
    """
    plt = pyplot()
    panels = [panel for panel in PANELS if any(panel[0] in entry for row in found["rows"].values() for entry in row)]
    figure, axes = plt.subplots(len(panels), 1, figsize=(9, 4 * len(panels)), layout="constrained", squeeze=False)
    numbers = {name: number for number, name in enumerate(found["rows"], 1)}
    for axis, (key, label) in zip(axes[:, 0], panels):
        for name, entries in found["rows"].items():
            values, seconds = [entry[key] for entry in entries], statistics.mean(entry["seconds"] for entry in entries)
            mean = statistics.mean(values)
            colour = next(colour for start, colour in FAMILIES if name.startswith(start))
            axis.errorbar(seconds, mean, [[mean - min(values)], [max(values) - mean]], fmt="o", color=colour, capsize=3)
            axis.annotate(str(numbers[name]), (seconds, mean), xytext=(5, 4), textcoords="offset points", fontsize=9)
        axis.set_ylabel(label)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.25)
    axes[-1, 0].set_xlabel("seconds per clip")
    legend = "\n".join(f"{number}  {name}" for name, number in numbers.items())
    figure.text(1.01, 0.98, legend, va="top", fontsize=9)
    return _save(figure, target)


def _save(figure: tp.Any, target: Path) -> Path:
    figure.savefig(target, dpi=110, bbox_inches="tight")
    pyplot().close(figure)
    return target
