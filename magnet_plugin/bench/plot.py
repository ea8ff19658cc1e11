"""Quality against time, a picture of a quality record."""
from __future__ import annotations

import statistics
import typing as tp
from pathlib import Path

from ..metrics.pictures import pyplot

PANELS = (("accuracy", "instrument accuracy"), ("frechet", "Fréchet distance (lower is better)"),
          ("likelihood", "log-likelihood under the MusicGen"))
FAMILIES = (("rescored", "#d1495b"), ("MusicGen begins", "#edae49"), ("hybrid", "#00798c"), ("MusicGen alone", "#666666"),
            ("", "#30638e"))


def draw(found: dict[str, tp.Any], target: Path) -> Path:
    """Draw the rows of a quality record, means over the seeds with their range, to `target`.

    Raises:
        ImportError: matplotlib is missing.
    """
    plt = pyplot()
    panels = [panel for panel in PANELS if any(panel[0] in entry for row in found["rows"].values() for entry in row)]
    figure, axes = plt.subplots(len(panels), 1, figsize=(9, 4 * len(panels)), layout="constrained", squeeze=False)
    numbers = {name: number for number, name in enumerate(found["rows"], 1)}
    for axis, (key, label) in zip(axes[:, 0], panels):
        for name, entries in found["rows"].items():
            values, seconds = [entry[key] for entry in entries], statistics.mean(entry["seconds"] for entry in entries)
            middle = statistics.mean(values)
            around = [[middle - min(values)], [max(values) - middle]]
            colour = next(colour for start, colour in FAMILIES if name.startswith(start))
            axis.errorbar(seconds, middle, around, fmt="o", color=colour, capsize=3)
            axis.annotate(str(numbers[name]), (seconds, middle), xytext=(5, 4), textcoords="offset points", fontsize=9)
        axis.set_ylabel(label)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.25)
    axes[-1, 0].set_xlabel("seconds per clip")
    legend = "\n".join(f"{number}  {name}" for name, number in numbers.items())
    figure.text(1.01, 0.98, legend, va="top", fontsize=9)
    figure.savefig(target, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return target
