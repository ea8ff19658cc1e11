"""`bench.table` and `bench.plot`: the page and its pictures, from records."""
import json
import shutil
from pathlib import Path

from magnet_plugin.bench import settings, table

RESULTS = Path(__file__).parents[2] / "docs/results"


def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    """`magnet bench table` writes the committed page from the committed records."""
    for path in RESULTS.glob("*.json"):
        shutil.copy(path, tmp_path)
    assert table.write(tmp_path).read_text() == (RESULTS / "bench.md").read_text()


def test_spreads_and_a_baseline_that_does_not_run() -> None:
    found = {"decode": {"fast path": {"seconds": [0.2, 0.1234567, 0.3], "first": 1.0, "peak_mib": 12.3},
                        "other": {"error": "NotImplementedError"}}, "decode_ratios": {"fast path": (2.0, 1.5, 2.5)}}
    text = table.timings(found, "decode", "other")
    assert "| fast path | 0.2 | 2.00 (1.50–2.50) | 1 | 12 MiB |" in text
    assert "other does not run on this machine: NotImplementedError" in text
    assert table.spread([0.5, 0.25], "accuracy") == "38 % (25 %–50 %)" and table.spread([], "frechet") == "–"


def test_a_record_of_quality_has_a_picture(tmp_path: Path) -> None:
    entry = {"accuracy": 0.5, "frechet": 10.0, "seconds": 1.0}
    rows = {row.name: [entry, {**entry, "accuracy": 0.4}] for row in settings.RESCORING}
    record = {"kind": "quality", "command": "magnet bench quality", "date": "2026-01-01",
              "made_with": {"measured_on": "a CPU", "cores": 2, "threads": 1, "python": "3.11"},
              "cases": [{"table": "rescoring", "clips": 2, "seeds": [0, 1], "bounds": {"real clips": {"accuracy": 1.0}},
                         "rows": rows}]}
    (tmp_path / "quality-rescoring.json").write_text(json.dumps(record))
    (tmp_path / "other.json").write_text("[]")
    text = table.write(tmp_path).read_text()
    assert "| rescored, w = 0.7 | 45 % (40 %–50 %) | 10 (10–10) | 1 (1–1) |" in text
    assert "| real clips | 100 % | – | – |" in text and "(quality-rescoring.png)" in text
    assert (tmp_path / "quality-rescoring.png").stat().st_size > 20_000
