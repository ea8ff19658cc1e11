"""Pictures of the study: differences with their intervals, and quality against time."""
from __future__ import annotations

import statistics
import typing as tp
from pathlib import Path

from ...metrics.judgement import Scores
from ...metrics.pictures import pyplot
from .study import JUDGES
from .verdicts import Outcome

COLOURS = {1: "#00798c", 0: "#999999", -1: "#d1495b"}


def draw_differences(outcomes: tp.Sequence[Outcome], target: Path) -> None:
    """Draw every comparison as a row with an interval per judge; green is better, red is worse.

    Raises:
        ImportError: matplotlib is not installed.
    """
    rows = [one for one in outcomes if one.differences]
    figure, axes = pyplot().subplots(1, len(JUDGES), figsize=(14, 1.2 + 0.34 * max(len(rows), 1)), sharey=True,
                                     layout="constrained")
    for axis, (name, judge) in zip(axes, JUDGES.items()):
        axis.axvline(0, color="#444444", linewidth=1)
        for height, one in enumerate(reversed(rows)):
            if name in one.differences:
                value, low, high = one.differences[name]
                colour = COLOURS[judge.side(one.differences[name])]
                axis.plot([low, high], [height, height], color=colour, linewidth=2.5, solid_capstyle="butt")
                axis.plot(value, height, "o", color=colour, markersize=5)
        axis.set_title(f"{judge.name} ({'higher' if judge.higher else 'lower'} is better)", fontsize=10)
        axis.grid(axis="x", alpha=0.25)
    axes[0].set_yticks(range(len(rows)), [f"{one.comparison.one} − {one.comparison.other}" for one in reversed(rows)],
                       fontsize=9)
    figure.savefig(target, dpi=110)
    pyplot().close(figure)


def draw_times(batches: tp.Mapping[str, tp.Mapping[str, tp.Any]], scores: tp.Mapping[str, Scores], target: Path
               ) -> None:
    """Draw each judge's score of the systems against their seconds per clip, a column per batch size.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, axes = pyplot().subplots(len(JUDGES), len(batches), figsize=(5.5 * len(batches), 3.2 * len(JUDGES)),
                                     layout="constrained", squeeze=False)
    for column, (batch, rows) in enumerate(batches.items()):
        for axis, (name, judge) in zip(axes[:, column], JUDGES.items()):
            for system, row in rows.items():
                interval = scores.get(system, {}).get(name)
                if "seconds" not in row or interval is None:
                    continue
                value, low, high = interval
                seconds = statistics.median(row["seconds"]) / int(batch)
                axis.errorbar(seconds, value, [[value - low], [high - value]], fmt="o", capsize=3, label=system)
            axis.set_ylabel(judge.name)
            axis.set_xlim(left=0)
            axis.grid(alpha=0.25)
        axes[0, column].set_title(f"batch {batch}")
        axes[-1, column].set_xlabel("seconds per clip")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(target, dpi=110)
    pyplot().close(figure)
