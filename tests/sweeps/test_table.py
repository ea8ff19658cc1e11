"""The table of a grid, as Markdown and as CSV."""
import csv
import io
import math
import re

from magnet_plugin.sweeps import records
from magnet_plugin.sweeps.report import to_page
from magnet_plugin.sweeps.table import to_csv, to_markdown

from ..helpers.toy_grids import EVALUATIONS, SPANS, Dora, cells, column, epoch


def test_every_job_has_a_row_with_its_state(mixed: Dora) -> None:
    found = mixed.table()
    assert [job.status for job in found.jobs] == ["finished", "incomplete", "broken", "finished", "incomplete", "missing"]
    text = to_markdown(found)
    states = column(text, "state")
    assert states[0] == states[3] == "finished" and states[2] == "**broken**" and states[5] == "**missing**"
    assert re.fullmatch(r"unknown, no output for \d+s", states[1])
    assert column(text, "epochs") == ["3 of 3", "1 of 3", "0 of 3", "3 of 3", "0 of 3", "0 of 3"]
    assert column(text, "span length") == ["1", "2", "10"] * 2
    assert column(text, "context") == ["5"] * 3 + ["all"] * 3
    assert column(text, "signature") == [f"`{mixed.folder(job).name}`" for job in SPANS]
    whole = to_page(found, 'magnet', [], [], '2026-01-01')
    assert f"{mixed.folder(SPANS[2]).name} is broken: history.json: Expecting" in whole
    assert "All jobs: `solver=magnet/debug`" in whole


def test_the_best_value_of_a_column_is_bold(mixed: Dora) -> None:
    text = to_markdown(mixed.table())
    assert column(text, "valid ce ↓") == ["4.000", "**2.500**", "–", "NaN", "–", "–"]
    assert column(text, "valid best ce ↓") == ["3.000", "**2.500**", "–", "–", "–", "–"]
    assert column(text, "valid at epoch") == ["2", "1", "–", "–", "–", "–"]
    assert column(text, "train s/update ↓") == ["2.000", "2.000", "–", "2.000", "–", "–"], "equal values"
    assert column(text, "evaluate FAD ↓") == ["4.500", *"–––––"], "a single value"


def test_higher_is_better_for_some_metrics(dora: Dora) -> None:
    dora.grid(SPANS[:4])
    dora.ran(SPANS[3], epoch(1.0, evaluate={"text_consistency": 0.1}))
    for job, consistency in zip(SPANS, (0.2, 0.3, 0.3)):
        dora.ran(job, *[epoch(1.0)] * 2, epoch(1.0, evaluate={"text_consistency": consistency, "novel_metric": consistency}))
    text = to_markdown(dora.table())
    assert column(text, "evaluate text consistency ↑") == ["0.200", "**0.300**", "**0.300**", "0.100"]
    assert column(text, "evaluate novel metric") == ["0.2", "0.3", "0.3", "–"], "displayed without a best value"


def test_nan_and_infinity_are_never_the_best(dora: Dora) -> None:
    dora.grid(SPANS[:3])
    for job, loss in zip(SPANS, (math.nan, 2.0, math.inf)):
        dora.ran(job, epoch(1.0, evaluate={"ce": loss}))
    assert column(to_markdown(dora.table()), "evaluate ce ↓") == ["NaN", "2.000", "inf"], "a single value"
    records.save_stage(dora.folder(SPANS[2]), "evaluate", {"ce": 1.5}, 1)
    assert column(to_markdown(dora.table()), "evaluate ce ↓") == ["NaN", "2.000", "**1.500**"]


def test_the_csv_has_full_precision_and_distinguishes_nan_from_missing(mixed: Dora) -> None:
    found = mixed.table()
    body = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert [line["status"] for line in body] == [job.status for job in found.jobs]
    assert [line["transformer_lm.subcodes_context"] for line in body] == ["5"] * 3 + ["-1"] * 3
    first = body[0]
    assert float(first["valid.ppl"]) == math.exp(4.0) and first["epochs_wanted"] == "3" and first["train.lr"] == "0.1"
    assert math.isnan(float(body[3]["valid.ce"])) and body[5]["valid.ce"] == "" and "Expecting" in body[2]["fault"]


def test_evaluations_have_no_epochs(dora: Dora) -> None:
    dora.grid(EVALUATIONS)
    dora.ran(EVALUATIONS[0], {"evaluate": {"fad": 3.0}})
    found = dora.table()
    assert [job.status for job in found.jobs] == ["finished", "missing"]
    text = to_markdown(found)
    assert cells(text)[0] == ["decoding steps", "state", "evaluate FAD ↓", "signature"], "no epochs"
    assert "continue_from=//sig/0a1b2c3d" in to_page(found, 'magnet', [], [], '2026-01-01')
