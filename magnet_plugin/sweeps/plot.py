"""Pictures of a grid: metrics against the first setting that is a number, and the validation loss against the epoch."""
from __future__ import annotations

import math
import re
import typing as tp
from pathlib import Path

from .rows import columns, metric
from .settings import Setting, label
from .table import Table

COLOURS = ("#30638e", "#d1495b", "#edae49", "#00798c", "#7b2d8b", "#666666", "#8cb369", "#bc6c25")
STYLES = ("-", "--", ":", "-.")
MARKERS = "osD^vP*X"
MOST = 8                     # panels


def pyplot() -> tp.Any:
    """matplotlib's pyplot, for files alone.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("no pictures were drawn: pip install matplotlib") from error
    return plt


def draw(table: Table, folder: Path) -> list[tuple[str, str]]:
    """Draw what there is to see of a grid.

    Returns:
        Titles and names of the files in `folder`.
    Raises:
        ImportError: matplotlib is missing.
    """
    plt = pyplot()
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


def metrics_figure(table: Table) -> tp.Any:
    """A panel per metric, a line per value of the other settings; None where there is nothing to compare.

    The x axis is the first setting whose values are numbers, else every job has a place of its own.
    """
    keys = plotted(table)
    if not keys or not table.settings:
        return None
    plt = pyplot()
    across = next((setting for setting in table.settings if setting.numbers and len(set(setting.values)) > 1), None)
    others = [setting for setting in table.settings if setting is not across]
    wide = min(2, len(keys))
    tall = math.ceil(len(keys) / wide)
    figure, axes = plt.subplots(tall, wide, figsize=(6.4 * wide, 4.2 * tall), layout="constrained", squeeze=False)
    for axis in axes.flat[len(keys):]:
        axis.remove()
    for axis, key in zip(axes.flat, keys):
        if across is None:
            places(axis, table, key)
        else:
            lines(axis, table, key, across, others)
        axis.set_ylabel(metric(key.split(".", 1)[1]).axis)
        axis.set_title(key.split(".")[0], fontsize=10)
        axis.grid(alpha=0.25)
    return figure


def lines(axis: tp.Any, table: Table, key: str, across: Setting, others: tp.Sequence[Setting]) -> None:
    """Lines over a setting that is a number. Jobs that are not finished have hollow marks."""
    numbers = across.numbers or []
    groups: dict[str, list[int]] = {}
    for index in range(len(table.jobs)):
        groups.setdefault(", ".join(setting.told(index) for setting in others), []).append(index)
    hollow = False
    for number, (name, members) in enumerate(groups.items()):
        known = sorted((index for index in members if math.isfinite(table.rows[index].get(key, math.nan))
                        and math.isfinite(numbers[index])), key=lambda index: numbers[index])
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axis.plot([numbers[index] for index in known], [table.rows[index][key] for index in known], marker=marker,
                  color=colour, label=name or None)
        half = [index for index in known if table.jobs[index].status != "finished"]
        hollow |= bool(half)
        axis.plot([numbers[index] for index in half], [table.rows[index][key] for index in half], marker=marker,
                  color=colour, markerfacecolor="white", linestyle="none", label="_half")
    ticks = sorted({number for number in numbers if math.isfinite(number)})
    if ticks[0] > 0 and ticks[-1] / ticks[0] >= 50:
        axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel(across.name + (f" ({across.unit})" if across.unit else "") + ("; hollow: unfinished" if hollow else ""))
    if others:
        axis.legend(fontsize=9)


def places(axis: tp.Any, table: Table, key: str) -> None:
    """A place per job, where no setting is a number."""
    for index, (job, row) in enumerate(zip(table.jobs, table.rows)):
        axis.plot(row.get(key, math.nan), index, marker="o", color=COLOURS[0],
                  markerfacecolor=COLOURS[0] if job.status == "finished" else "white")
    axis.set_yticks(range(len(table.jobs)), [label(table.settings, index, job.signature)
                                             for index, job in enumerate(table.jobs)], fontsize=9)
    axis.invert_yaxis()


def loss_figure(table: Table) -> tp.Any:
    """The validation loss against the epoch, a line per job; None where no job was validated."""
    curves = [[(number, epoch["valid"]["ce"]) for number, epoch in enumerate(job.history, 1)
               if "ce" in epoch.get("valid", {})] for job in table.jobs]
    if not any(curves):
        return None
    plt = pyplot()
    count = sum(map(bool, curves))
    figure, axis = plt.subplots(figsize=(9.5, max(4.5, 0.19 * count + 1)), layout="constrained")
    palette = plt.get_cmap("viridis")
    for index, curve in enumerate(curves):
        if curve:
            axis.plot(*zip(*curve), color=palette(0.95 * index / max(1, len(curves) - 1)),
                      linestyle=STYLES[index % len(STYLES)], marker="." if len(curve) < 20 else None,
                      label=label(table.settings, index, table.jobs[index].signature))
    axis.set_xlabel("epoch")
    axis.set_ylabel("validation cross entropy, nats a token")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.25)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
