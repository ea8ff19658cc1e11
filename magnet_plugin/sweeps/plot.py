"""Plots of a grid: metrics against its first numeric setting, and the validation loss against the epoch."""
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
MAX_PANELS = 8


def draw(table: Table, folder: Path) -> list[tuple[str, str]]:
    """Draw the plots that a grid has data for.

    Returns:
        Titles and names of the files in `folder`.
    Raises:
        ImportError: matplotlib is not installed.
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


def plotted_metrics(table: Table) -> list[str]:
    """Return the metrics that get a panel: those with a better direction, as of the end of a job."""
    keys = [key for key in columns(table.rows) if metric(key.split(".", 1)[1]).better]
    wanted = [key for key in keys if re.fullmatch(r"valid\.best_ce|generate\.seconds_per_clip|evaluate\.(?!ppl|ce_).+", key)]
    return wanted[:MAX_PANELS]


def x_setting(table: Table) -> tp.Optional[Setting]:
    """Return the x axis: the first setting whose values are numbers; None if there is none."""
    return next((setting for setting in table.settings if setting.numbers), None)


def groups(table: Table) -> dict[str, list[int]]:
    """Group the jobs that differ only in the x setting, each group sorted by it. Keys describe the other settings."""
    first = x_setting(table)
    numbers = (first and first.numbers) or [0.0] * len(table.jobs)
    found: dict[str, list[int]] = {}
    for index in sorted(range(len(table.jobs)), key=lambda index: numbers[index]):
        found.setdefault(label([other for other in table.settings if other is not first], index, ""), []).append(index)
    return dict(sorted(found.items(), key=lambda group: min(group[1])))


def metrics_figure(table: Table) -> tp.Any:
    """Draw one panel per metric; None if there is nothing to compare."""
    keys = plotted_metrics(table)
    if not keys or not table.settings:
        return None
    plt = pyplot()
    wide = 2 if len(keys) in (2, 4) else min(3, len(keys))
    tall = math.ceil(len(keys) / wide)
    categorical = x_setting(table) is None
    height = 1.2 + 0.3 * len(table.jobs) if categorical else 4.2
    figure, axes = plt.subplots(tall, wide, figsize=(5.6 * wide, tall * height), layout="constrained", squeeze=False,
                                sharey=categorical)
    for axis in axes.flat[len(keys):]:
        axis.remove()
    for axis, key in zip(axes.flat, keys):
        stage, name = key.split(".", 1)
        if categorical:
            dots(axis, table, key)
            incomplete = any(key in row and job.status != "finished" for job, row in zip(table.jobs, table.rows))
            axis.set_xlabel(metric(name).axis + ("; hollow: incomplete" if incomplete else ""))
        else:
            lines(axis, table, key)
            axis.set_ylabel(metric(name).axis)
        axis.set_title(f"{stage} ({'lower' if metric(name).better < 0 else 'higher'} is better)", fontsize=10)
        axis.ticklabel_format(axis="x" if categorical else "y", useOffset=False)
        axis.grid(alpha=0.25)
    return figure


def lines(axis: tp.Any, table: Table, key: str) -> None:
    """Draw one line per value of the other settings, dotted across missing jobs; incomplete jobs have hollow markers."""
    first = x_setting(table)
    assert first is not None and first.numbers is not None
    numbers, hollow = first.numbers, False
    for number, (name, members) in enumerate(groups(table).items()):
        values = [table.rows[index].get(key, math.nan) for index in members]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axis.plot([numbers[index] for index in members], values, marker=marker, color=colour, label=name or "all jobs")
        known = [index for index in members if math.isfinite(table.rows[index].get(key, math.nan))]
        axis.plot([numbers[index] for index in known], [table.rows[index][key] for index in known], linestyle=":",
                  color=colour, linewidth=1, label="_bridge")
        incomplete = [index for index in known if table.jobs[index].status != "finished"]
        axis.plot([numbers[index] for index in incomplete], [table.rows[index][key] for index in incomplete], marker=marker,
                  color=colour, markerfacecolor="white", linestyle="none", label="_incomplete")
        hollow |= bool(incomplete)
    ticks = sorted({number for number in numbers if math.isfinite(number)})
    if ticks[0] > 0 and ticks[-1] / ticks[0] >= 50:
        axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel(first.name + (f" ({first.unit})" if first.unit else "") + ("; hollow: incomplete" if hollow else ""))
    if len(table.settings) > 1:
        axis.legend(fontsize=9)


def dots(axis: tp.Any, table: Table, key: str) -> None:
    """Draw one row per job, for grids without a numeric setting."""
    for index, (job, row) in enumerate(zip(table.jobs, table.rows)):
        axis.plot(row.get(key, math.nan), index, marker="o", color=COLOURS[0],
                  markerfacecolor=COLOURS[0] if job.status == "finished" else "white")
    axis.set_yticks(range(len(table.jobs)), [label(table.settings, index, job.signature)
                                             for index, job in enumerate(table.jobs)], fontsize=9)
    axis.set_ylim(len(table.jobs) - 0.5, -0.5)


def loss_figure(table: Table) -> tp.Any:
    """Draw the validation loss against the epoch, one line per job; None if no job has been validated.

    The colour shows the first numeric setting, the line style the other settings.
    """
    curves = [[(number, epoch["valid"]["ce"]) for number, epoch in enumerate(job.history, 1)
               if "ce" in epoch.get("valid", {})] for job in table.jobs]
    if not any(curves):
        return None
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(9.5, max(4.5, 0.19 * sum(map(bool, curves)) + 1)), layout="constrained")
    first = x_setting(table)
    values = list(dict.fromkeys(first.values)) if first else [job.signature for job in table.jobs]
    for number, members in enumerate(groups(table).values()):
        for index in (index for index in members if curves[index]):
            place = values.index(first.values[index] if first else table.jobs[index].signature)
            axis.plot(*zip(*curves[index]), color=plt.get_cmap("viridis")(0.92 * place / max(1, len(values) - 1)),
                      linestyle=STYLES[number % len(STYLES)] if first else "-",
                      marker="." if max(map(len, curves)) < 20 else None,
                      label=label(table.settings, index, table.jobs[index].signature))
    axis.set_xlabel("epoch")
    axis.set_ylabel("validation cross entropy, nats per token")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.grid(alpha=0.25)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
