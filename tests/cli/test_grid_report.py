"""The `magnet grid-report` command: what it writes and prints."""
import re
import sys
import types
from pathlib import Path

import pytest

from magnet_plugin.cli import main as cli
from magnet_plugin.sweeps import catalog, records
from magnet_plugin.sweeps.report import rewrite_report

from ..helpers.toy_grids import SPANS, Dora, column


def run_report(args: list[str], dora: Dora, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command in this process, with a toy main function."""
    monkeypatch.setitem(sys.modules, "magnet_plugin.train", types.SimpleNamespace(main=dora.main))  # type: ignore[arg-type]
    monkeypatch.setattr(catalog, "grid_names", lambda: ["toy"])
    return cli.main(["grid-report", *args])


def test_it_writes_tables_and_plots(mixed: Dora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture) -> None:
    records.save_machine(mixed.folder(SPANS[0]), {"commit": "0123456789abcdef", "measured_on": "A Chip", "cores": 2})
    out = tmp_path / "out"
    assert run_report(["toy", "--out", str(out)], mixed, monkeypatch) == 0
    names = ["toy.md", "toy.csv", "toy.json", "toy-metrics.png", "toy-loss.png"]
    assert capsys.readouterr().out.split() == [str(out / name) for name in names]
    text = (out / "toy.md").read_text()
    assert "6 jobs: 2 finished, 2 incomplete, 1 missing, 1 broken" in text and "![Metrics](toy-metrics.png)" in text
    assert "- commit: 0123456789\n- run on: A Chip" in text and re.search(r"`magnet.*`, \d{4}-\d\d-\d\d \d\d:\d\d", text)
    assert all((out / name).read_bytes()[:4] == b"\x89PNG" for name in names[3:])
    (out / "toy.md").unlink()
    assert [path.name for path in rewrite_report(out / "toy.json").files] == names
    assert (out / "toy.md").read_text() == text, "the record holds everything that the page shows"
    assert run_report(["toy", "--out", str(out), "--csv", "--no-plots"], mixed, monkeypatch) == 0
    assert capsys.readouterr().out == (out / "toy.csv").read_text()
    assert "![" not in (out / "toy.md").read_text()


def test_without_matplotlib_it_writes_the_tables_and_says_so(mixed: Dora, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch,
                                                                  capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run_report(["toy", "--out", str(tmp_path / "out")], mixed, monkeypatch) == 0
    captured = capsys.readouterr()
    assert captured.err == "no pictures were drawn: pip install matplotlib\n"
    assert "![" not in (tmp_path / "out" / "toy.md").read_text()


def test_an_unknown_grid_is_an_error_of_one_line_with_the_known_ones(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["grid-report", "magnet.ablate_spam"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("magnet: error: there is no grid 'magnet.ablate_spam'; available grids: ")
    assert said.count("\n") == 1
    assert "magnet.ablate_span" in said and "magnet.tiny.ablate_span" in said and "_base" not in said


def test_a_shipped_grid_without_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture) -> None:
    from magnet_plugin.train import main as dora_main
    monkeypatch.setattr(dora_main.dora, "dir", tmp_path / "runs")
    monkeypatch.delenv("MAGNET_GRID_OVERRIDES", raising=False)
    assert cli.main(["grid-report", "magnet.tiny.ablate_scale", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "magnet.tiny.ablate_scale.md").read_text()
    assert column(text, "state") == ["**missing**"] * 2 and column(text, "epochs") == ["0 of 2"] * 2
    assert "2 jobs: 0 finished, 0 incomplete, 2 missing, 0 broken" in text and not (tmp_path / "runs").exists()
    assert "No job has started yet" in capsys.readouterr().err
    monkeypatch.setenv("MAGNET_GRID_OVERRIDES", "no.such=1")
    assert cli.main(["grid-report", "magnet.ablate_span", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "magnet: error: the jobs of magnet.ablate_span cannot be composed" in said and "MAGNET_GRID_OVERRIDES" in said
    assert said.count("\n") == 1
