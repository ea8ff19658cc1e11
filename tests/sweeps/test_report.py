"""`magnet grid-report`: table, CSV, pictures, and what the command says."""
import csv
import io
import math
import re
import sys
import types
import typing as tp
from pathlib import Path

import pytest

from magnet_plugin.cli import main as cli
from magnet_plugin.sweeps import jobs, plot, records, table

from ..helpers.toy_grids import END, EVALUATIONS, SPANS, Dora, epoch


def cells(text: str) -> list[list[str]]:
    """Head and rows of a Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not set(line) <= set("|-: ")]


def column(text: str, head: str) -> list[str]:
    heads, *body = cells(text)
    return [row[heads.index(head)] for row in body]


def test_every_job_has_a_row_with_its_state(mixed: Dora) -> None:
    found = mixed.table()
    assert [job.status for job in found.jobs] == ["finished", "half", "broken", "finished", "half", "missing"]
    text = table.markdown(found)
    states = column(text, "state")
    assert states[0] == states[3] == "finished" and states[2] == "**broken**" and states[5] == "**missing**"
    assert re.fullmatch(r"unknown, silent for \d+s", states[1])
    assert column(text, "epochs") == ["3 of 3", "1 of 3", "0 of 3", "3 of 3", "0 of 3", "0 of 3"]
    assert column(text, "span length") == ["1", "2", "10"] * 2
    assert column(text, "context") == ["5"] * 3 + ["all"] * 3
    assert column(text, "signature") == [f"`{mixed.folder(job).name}`" for job in SPANS]
    whole = table.document(found, [], [], [])
    assert f"{mixed.folder(SPANS[2]).name} is broken: history.json: Expecting" in whole
    assert "All jobs: `solver=magnet/debug`" in whole


def test_the_best_of_a_column_is_bold_and_nan_is_never(mixed: Dora) -> None:
    text = table.markdown(mixed.table())
    assert column(text, "valid ce ↓") == ["4.000", "**2.500**", "–", "NaN", "–", "–"]
    assert column(text, "valid best ce ↓") == ["3.000", "**2.500**", "–", "–", "–", "–"]
    assert column(text, "valid at epoch") == ["2", "1", "–", "–", "–", "–"]
    assert column(text, "train s/update ↓") == ["2.000", "2.000", "–", "2.000", "–", "–"], "no best of equals"
    assert column(text, "evaluate FAD ↓") == ["4.500", *"–––––"], "no best of one"


def test_more_is_better_for_some(dora: Dora) -> None:
    dora.grid(SPANS[:4])
    dora.ran(SPANS[3], epoch(1.0, evaluate={"text_consistency": 0.1}))
    for job, consistency in zip(SPANS, (0.2, 0.3, 0.3)):
        dora.ran(job, *[epoch(1.0)] * 2, epoch(1.0, evaluate={"text_consistency": consistency, "novel_metric": consistency}))
    text = table.markdown(dora.table())
    assert column(text, "evaluate text consistency ↑") == ["0.200", "**0.300**", "**0.300**", "0.100"]
    assert column(text, "evaluate novel metric") == ["0.2", "0.3", "0.3", "–"], "shown, and not judged"


def test_nan_before_the_best(dora: Dora) -> None:
    dora.grid(SPANS[:3])
    for job, loss in zip(SPANS, (math.nan, 2.0, math.inf)):
        dora.ran(job, epoch(1.0, evaluate={"ce": loss}))
    assert column(table.markdown(dora.table()), "evaluate ce ↓") == ["NaN", "2.000", "inf"], "no best of one"
    records.keep_stage(dora.folder(SPANS[2]), "evaluate", {"ce": 1.5}, 1)
    assert column(table.markdown(dora.table()), "evaluate ce ↓") == ["NaN", "2.000", "**1.500**"]


def test_the_csv_has_it_all_in_full_precision(mixed: Dora) -> None:
    found = mixed.table()
    body = list(csv.DictReader(io.StringIO(table.text_csv(found))))
    assert [line["status"] for line in body] == [job.status for job in found.jobs]
    assert [line["transformer_lm.subcodes_context"] for line in body] == ["5"] * 3 + ["-1"] * 3
    first = body[0]
    assert float(first["valid.ppl"]) == math.exp(4.0) and first["epochs_wanted"] == "3" and first["train.lr"] == "0.1"
    assert math.isnan(float(body[3]["valid.ce"])) and body[5]["valid.ce"] == "" and "Expecting" in body[2]["fault"]


def test_jobs_that_are_one_stage_of_the_same_model(dora: Dora) -> None:
    dora.grid(EVALUATIONS)
    dora.ran(EVALUATIONS[0], {"evaluate": {"fad": 3.0}})
    found = dora.table()
    assert [job.status for job in found.jobs] == ["finished", "missing"]
    text = table.markdown(found)
    assert cells(text)[0] == ["decoding steps", "state", "evaluate FAD ↓", "signature"], "no epochs"
    assert "continue_from=//sig/0a1b2c3d" in table.document(found, [], [], [])


def lines_of(axis: tp.Any) -> dict[str, tp.Any]:
    return {line.get_label(): line for line in axis.get_lines() if not line.get_label().startswith("_")}


def test_metrics_are_drawn_over_the_first_number(mixed: Dora) -> None:
    figure = plot.metrics_figure(mixed.table())
    by_title = {axis.get_ylabel(): axis for axis in figure.axes}
    axis = by_title["least cross entropy, nats a token"]
    assert axis.get_xlabel() == "span length (frames); hollow: unfinished" and axis.get_title() == "valid (less is better)"
    found = lines_of(axis)
    assert list(found) == ["context 5", "context all"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["context 5", "context all"]
    assert list(found["context 5"].get_xdata()) == [1, 2, 10]
    values = list(found["context 5"].get_ydata())
    assert values[:2] == [3.0, 2.5] and math.isnan(values[2])
    hollow = [line for line in axis.get_lines() if line.get_label() == "_unfinished" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in hollow] == [[2]] and hollow[0].get_markerfacecolor() == "white"
    assert "Fréchet audio distance" in by_title and "seconds per clip" in by_title


def test_the_loss_is_drawn_for_every_job_that_has_one(mixed: Dora) -> None:
    figure = plot.loss_figure(mixed.table())
    axis, = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "validation cross entropy, nats a token")
    assert list(lines_of(axis)) == ["span length 1, context 5", "span length 2, context 5", "span length 1, context all"]
    assert list(lines_of(axis)["span length 1, context 5"].get_ydata()) == [5.0, 3.0, 4.0]


def test_words_have_places_of_their_own(dora: Dora) -> None:
    wanted = [{"generate.lm.span_arrangement": word} for word in ("stride1", "nonoverlap")]
    dora.grid(wanted)
    for job in wanted:
        dora.ran(job, *[epoch(1.0)] * 2, epoch(1.0, **END))
    axis = plot.metrics_figure(dora.table()).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["spans stride1", "spans nonoverlap"]


def test_without_anything_to_show_nothing_is_drawn(dora: Dora, tmp_path: Path) -> None:
    dora.grid(SPANS)
    assert plot.draw(dora.table(), tmp_path) == []


def run_report(args: list[str], dora: Dora, monkeypatch: pytest.MonkeyPatch) -> int:
    """The command in this process, on a toy main."""
    monkeypatch.setitem(sys.modules, "magnet_plugin.train", types.SimpleNamespace(main=dora.main))  # type: ignore[arg-type]
    monkeypatch.setattr(jobs, "grid_names", lambda: ["toy"])
    return cli.main(["grid-report", *args])


def test_the_command_writes_table_and_pictures(mixed: Dora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture) -> None:
    records.keep_machine(mixed.folder(SPANS[0]), {"commit": "0123456789abcdef", "measured_on": "A Chip", "cores": 2})
    out = tmp_path / "out"
    assert run_report(["toy", "--out", str(out)], mixed, monkeypatch) == 0
    names = ["toy.md", "toy.csv", "toy-metrics.png", "toy-loss.png"]
    assert capsys.readouterr().out.split() == [str(out / name) for name in names]
    text = (out / "toy.md").read_text()
    assert "6 jobs: 2 finished, 2 half done, 1 missing, 1 broken" in text and "![Metrics](toy-metrics.png)" in text
    assert "- commit: 0123456789\n- run on: A Chip" in text and re.search(r"`magnet .*`, \d{4}-\d\d-\d\d \d\d:\d\d", text)
    assert all((out / name).read_bytes()[:4] == b"\x89PNG" for name in names[2:])
    assert run_report(["toy", "--out", str(out), "--csv", "--no-plots"], mixed, monkeypatch) == 0
    assert capsys.readouterr().out == (out / "toy.csv").read_text()
    assert "![" not in (out / "toy.md").read_text()


def test_without_matplotlib_the_tables_are_written_and_it_says_so(mixed: Dora, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch,
                                                                  capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run_report(["toy", "--out", str(tmp_path / "out")], mixed, monkeypatch) == 0
    captured = capsys.readouterr()
    assert captured.err == "no pictures were drawn: pip install matplotlib\n"
    assert "![" not in (tmp_path / "out" / "toy.md").read_text()


def test_an_unknown_grid_is_one_line_with_the_known_ones(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["grid-report", "magnet.ablate_spam"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("magnet: error: there is no grid magnet.ablate_spam; there are ") and said.count("\n") == 1
    assert "magnet.ablate_span" in said and "magnet.tiny.ablate_span" in said and "_base" not in said


def test_a_real_grid_of_which_nothing_has_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture) -> None:
    from magnet_plugin.train import main as dora_main
    monkeypatch.setattr(dora_main.dora, "dir", tmp_path / "runs")
    monkeypatch.delenv("MAGNET_GRID_OVERRIDES", raising=False)
    assert cli.main(["grid-report", "magnet.tiny.ablate_span", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "magnet.tiny.ablate_span.md").read_text()
    assert column(text, "state") == ["**missing**"] * 12 and column(text, "epochs") == ["0 of 2"] * 12
    assert "12 jobs: 0 finished, 0 half done, 12 missing, 0 broken" in text and not (tmp_path / "runs").exists()
    assert "None of the jobs has begun" in capsys.readouterr().err
    monkeypatch.setenv("MAGNET_GRID_OVERRIDES", "no.such=1")
    assert cli.main(["grid-report", "magnet.ablate_span", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "magnet: error: the jobs of magnet.ablate_span cannot be composed" in said and "MAGNET_GRID_OVERRIDES" in said
    assert said.count("\n") == 1
