"""Pictures of a grid: metrics against the first setting that is a number, and the validation loss against the epoch."""
from __future__ import annotations

import math
import re
import typing as tp
from pathlib import Path

from ..metrics.pictures import pyplot
from .rows import columns, metric
from .settings import Setting, label
from .table import Table

COLOURS = ("#30638e", "#d1495b", "#edae49", "#00798c", "#7b2d8b", "#666666", "#8cb369", "#bc6c25")
STYLES = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X"
MOST = 8                     # panels


def draw(table: Table, folder: Path) -> list[tuple[str, str]]:
    """Draw what there is to see of a grid.

    Returns:
        Titles and names of the files in `folder`.
    Raises:
        ImportError: matplotlib is missing.
    """
    plt = pyplot("no pictures were drawn")
    drawn = []
    for title, ending, make in (("Metrics", "metrics", metrics_figure), ("Validation loss", "loss", loss_figure)):
        figure = make(table)
        if figure is not None:
            name = f"{table.name}-{ending}.png"
            figure.savefig(folder / name, dpi=110)
            plt.close(figure)
            drawn.append((title, name))
    return drawn


def plotted(table: Table) -> list[str]:
    """Metrics worth a panel: those of which less or more is better, at the end of a job."""
    keys = [key for key in columns(table.rows) if metric(key.split(".", 1)[1]).better]
    wanted = [key for key in keys if re.fullmatch(r"valid\.best_ce|generate\.seconds_per_clip|evaluate\.(?!ppl|ce_).+", key)]
    return wanted[:MOST]


def across(table: Table) -> tp.Optional[Setting]:
    """The first setting whose values are numbers: the x axis."""
    return next((setting for setting in table.settings if setting.numbers), None)


def groups(table: Table) -> dict[str, list[int]]:
    """Jobs that differ in that setting alone, by what the others are; in its order."""
    first = across(table)
    numbers = (first and first.numbers) or [0.0] * len(table.jobs)
    found: dict[str, list[int]] = {}
    for index in sorted(range(len(table.jobs)), key=lambda index: numbers[index]):
        found.setdefault(label([other for other in table.settings if other is not first], index, ""), []).append(index)
    return dict(sorted(found.items(), key=lambda group: min(group[1])))


def metrics_figure(table: Table) -> tp.Any:
    """A panel per metric; None where there is nothing to compare."""
    keys = plotted(table)
    if not keys or not table.settings:
        return None
    plt = pyplot()
    wide = 2 if len(keys) in (2, 4) else min(3, len(keys))
    tall = math.ceil(len(keys) / wide)
    words = across(table) is None
    figure, axes = plt.subplots(tall, wide, figsize=(5.6 * wide, tall * (1.2 + 0.3 * len(table.jobs) if words else 4.2)),
                                layout="constrained", squeeze=False, sharey=words)
    for axis in axes.flat[len(keys):]:
        axis.remove()
    for axis, key in zip(axes.flat, keys):
        stage, name = key.split(".", 1)
        if words:
            places(axis, table, key)
            half = any(key in row and job.status != "finished" for job, row in zip(table.jobs, table.rows))
            axis.set_xlabel(metric(name).axis + ("; hollow: unfinished" if half else ""))
        else:
            lines(axis, table, key)
            axis.set_ylabel(metric(name).axis)
        axis.set_title(f"{stage} ({'less' if metric(name).better < 0 else 'more'} is better)", fontsize=10)
        axis.ticklabel_format(axis="x" if words else "y", useOffset=False)
        axis.grid(alpha=0.25)
    return figure


def lines(axis: tp.Any, table: Table, key: str) -> None:
    """A line per value of the other settings, dotted where a job between is missing. Unfinished jobs have hollow marks."""
    first = across(table)
    assert first is not None and first.numbers is not None
    numbers, hollow = first.numbers, False
    for number, (name, members) in enumerate(groups(table).items()):
        values = [table.rows[index].get(key, math.nan) for index in members]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axis.plot([numbers[index] for index in members], values, marker=marker, color=colour, label=name or "all jobs")
        known = [index for index in members if math.isfinite(table.rows[index].get(key, math.nan))]
        axis.plot([numbers[index] for index in known], [table.rows[index][key] for index in known], linestyle=":",
                  color=colour, linewidth=1, label="_bridge")
        half = [index for index in known if table.jobs[index].status != "finished"]
        axis.plot([numbers[index] for index in half], [table.rows[index][key] for index in half], marker=marker,
                  color=colour, markerfacecolor="white", linestyle="none", label="_unfinished")
        hollow |= bool(half)
    ticks = sorted({number for number in numbers if math.isfinite(number)})
    if ticks[0] > 0 and ticks[-1] / ticks[0] >= 50:
        axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel(first.name + (f" ({first.unit})" if first.unit else "") + ("; hollow: unfinished" if hollow else ""))
    if len(table.settings) > 1:
        axis.legend(fontsize=9)


def places(axis: tp.Any, table: Table, key: str) -> None:
    """A place per job, where no setting is a number."""
    for index, (job, row) in enumerate(zip(table.jobs, table.rows)):
        axis.plot(row.get(key, math.nan), index, marker="o", color=COLOURS[0],
                  markerfacecolor=COLOURS[0] if job.status == "finished" else "white")
    axis.set_yticks(range(len(table.jobs)), [label(table.settings, index, job.signature)
                                             for index, job in enumerate(table.jobs)], fontsize=9)
    axis.set_ylim(len(table.jobs) - 0.5, -0.5)


def loss_figure(table: Table) -> tp.Any:
    """The validation loss against the epoch, a line per job; None where no job was validated.

    A colour per value of the first number, a dash per value of the other settings.
    """
    curves = [[(number, epoch["valid"]["ce"]) for number, epoch in enumerate(job.history, 1)
               if "ce" in epoch.get("valid", {})] for job in table.jobs]
    if not any(curves):
        return None
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(9.5, max(4.5, 0.19 * sum(map(bool, curves)) + 1)), layout="constrained")
    first = across(table)
    values = list(dict.fromkeys(first.values)) if first else [job.signature for job in table.jobs]
    for number, members in enumerate(groups(table).values()):
        for index in (index for index in members if curves[index]):
            place = values.index(first.values[index] if first else table.jobs[index].signature)
            axis.plot(*zip(*curves[index]), color=plt.get_cmap("viridis")(0.92 * place / max(1, len(values) - 1)),
                      linestyle=STYLES[number % len(STYLES)] if first else "-",
                      marker="." if max(map(len, curves)) < 20 else None,
                      label=label(table.settings, index, table.jobs[index].signature))
    axis.set_xlabel("epoch")
    axis.set_ylabel("validation cross entropy, nats a token")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.grid(alpha=0.25)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
