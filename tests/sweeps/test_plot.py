"""Plots of a grid."""
import math
import typing as tp
from pathlib import Path

from magnet_plugin.sweeps import plot

from ..helpers.toy_grids import END, SPANS, Dora, epoch


def lines_of(axis: tp.Any) -> dict[str, tp.Any]:
    return {line.get_label(): line for line in axis.get_lines() if not line.get_label().startswith("_")}


def test_metrics_are_drawn_against_the_first_numeric_setting(mixed: Dora) -> None:
    figure = plot.metrics_figure(mixed.table())
    by_title = {axis.get_ylabel(): axis for axis in figure.axes}
    axis = by_title["lowest cross entropy, nats per token"]
    assert axis.get_xlabel() == "span length (frames); hollow: incomplete" and axis.get_title() == "valid (lower is better)"
    found = lines_of(axis)
    assert list(found) == ["context 5", "context all"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["context 5", "context all"]
    assert list(found["context 5"].get_xdata()) == [1, 2, 10]
    values = list(found["context 5"].get_ydata())
    assert values[:2] == [3.0, 2.5] and math.isnan(values[2])
    hollow = [line for line in axis.get_lines() if line.get_label() == "_incomplete" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in hollow] == [[2]] and hollow[0].get_markerfacecolor() == "white"
    assert "Fréchet audio distance" in by_title and "seconds per clip" in by_title


def test_the_loss_is_drawn_for_every_validated_job(mixed: Dora) -> None:
    figure = plot.loss_figure(mixed.table())
    axis, = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "validation cross entropy, nats per token")
    assert list(lines_of(axis)) == ["span length 1, context 5", "span length 2, context 5", "span length 1, context all"]
    assert list(lines_of(axis)["span length 1, context 5"].get_ydata()) == [5.0, 3.0, 4.0]


def test_a_grid_without_numeric_settings_has_one_row_per_job(dora: Dora) -> None:
    wanted = [{"generate.lm.span_arrangement": word} for word in ("stride1", "nonoverlap")]
    dora.grid(wanted)
    for job in wanted:
        dora.ran(job, *[epoch(1.0)] * 2, epoch(1.0, **END))
    axis = plot.metrics_figure(dora.table()).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["spans stride1", "spans nonoverlap"]


def test_nothing_is_drawn_for_a_grid_without_results(dora: Dora, tmp_path: Path) -> None:
    dora.grid(SPANS)
    assert plot.draw(dora.table(), tmp_path) == []
