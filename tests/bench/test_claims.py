"""The study of the paper's claims: the rule of its verdicts, its records, and its page."""
import json
from pathlib import Path

import pytest
import torch

from magnet_plugin.bench import quality
from magnet_plugin.bench.claims import measure, page
from magnet_plugin.bench.claims.study import CANDIDATES, CLAIMS, JUDGES, PAPER, SPEED, SYSTEMS, Comparison
from magnet_plugin.bench.claims.verdicts import (
    NOT_MEASURED,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    outcome,
    verdict,
)
from magnet_plugin.bench.settings import Setting
from magnet_plugin.cli.main import main
from magnet_plugin.metrics.jackknife import Jackknife
from magnet_plugin.metrics.judgement import Judgement

from ..helpers.tones import ToneModel, write_tones

CLIPS, SEEDS = 40, 2


def judgement(recognised: float, in_key: float, distance: float) -> Judgement:
    """A judgement without noise: all differences of two of them have intervals of no width."""
    return Judgement({"instruments": [[recognised] * CLIPS] * SEEDS, "in_key": [[in_key] * CLIPS] * SEEDS},
                     {"kernel_timbre": Jackknife(distance, (distance,) * CLIPS)})


BASE = (0.5, 0.8, 0.2)


@pytest.mark.parametrize("strict, values, expected", [
    (True, (0.6, 0.8, 0.2), REPRODUCED), (True, (0.5, 0.9, 0.2), REPRODUCED), (True, (0.5, 0.8, 0.1), REPRODUCED),
    (True, (0.4, 0.8, 0.2), NOT_REPRODUCED), (True, (0.5, 0.8, 0.3), NOT_REPRODUCED), (True, BASE, UNDECIDED),
    (True, (0.6, 0.7, 0.2), UNDECIDED), (False, BASE, REPRODUCED), (False, (0.7, 0.9, 0.1), REPRODUCED),
    (False, (0.45, 0.8, 0.2), NOT_REPRODUCED), (False, (0.6, 0.7, 0.2), UNDECIDED),
])
def test_judges_decide_a_comparison(strict: bool, values: tuple[float, float, float], expected: str) -> None:
    found = {"one": judgement(*values), "other": judgement(*BASE)}
    assert outcome(Comparison("one", "other", strict), found.get).verdict == expected
    assert outcome(Comparison("one", "missing", strict), found.get).verdict == NOT_MEASURED


def test_a_wide_interval_does_not_show_that_something_is_not_worse() -> None:
    noisy = Judgement({"in_key": [[0.0, 1.6] * (CLIPS // 2)] * SEEDS}, {})
    found = {"one": noisy, "other": judgement(*BASE)}
    result = outcome(Comparison("one", "other", strict=False), found.get)
    assert result.differences["in_key"][1] < -JUDGES["in_key"].margin and result.verdict == UNDECIDED


def test_times_decide_the_claims_about_speed() -> None:
    (claim,) = [claim for claim in CLAIMS if claim.name == "Latency"]
    assert claim.speed is not None
    batch, one, other, factor = claim.speed

    def decided(mine: list[float], theirs: list[float]) -> str:
        return verdict(claim, [], {str(batch): {one: {"seconds": mine}, other: {"seconds": theirs}}})

    assert decided([1, 2], [1.1 * factor, 2.2 * factor]) == REPRODUCED
    assert decided([1, 2], [1.1 * factor, 1.9 * factor]) == UNDECIDED
    assert decided([1, 2], [0.9 * factor, 1.9 * factor]) == NOT_REPRODUCED
    assert verdict(claim, [], None) == verdict(claim, [], {str(batch): {one: {"error": "none"}}}) == NOT_MEASURED


def test_every_claim_compares_systems_that_are_measured() -> None:
    from magnet_plugin.train import main as entry
    assert PAPER.params == {}
    assert len(CLAIMS) == 9 and len({claim.name for claim in CLAIMS}) == 9
    names = {name for claim in CLAIMS for one in claim.comparisons for name in (one.one, one.other)}
    assert names | {one.name for one in CANDIDATES} <= SYSTEMS.keys()
    assert all(bool(claim.comparisons) != bool(claim.speed) for claim in CLAIMS)
    assert {name for claim in CLAIMS if claim.speed for name in claim.speed[1:3]} <= {one.name for one in SPEED}
    trained = [one for one in SYSTEMS.values() if one.training]
    assert len({entry.get_xp(list(one.training)).sig for one in trained}) == len(trained) == 4
    assert len({measure.path_of(Path(), name) for name in SYSTEMS}) == len(SYSTEMS)


@pytest.fixture
def tones(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Systems of tones in the place of models; returns the names of those that were loaded."""
    loaded: list[str] = []
    folders = [write_tones(tmp_path_factory.mktemp("tones"), count, seed) for seed, count in enumerate((30, 9))]

    class Model(ToneModel):
        lm = torch.nn.Linear(1, 1, bias=False)
        duration = 1.0

    def load(setting: Setting) -> ToneModel:
        loaded.append(setting.name)
        return Model(follows_text=setting.name != "guidance 1 → 1")

    monkeypatch.setattr(quality, "load", load)
    monkeypatch.setattr(quality, "folk_splits", lambda data: folders)
    monkeypatch.setattr(measure, "METRICS", ("instruments", "kernel"))
    monkeypatch.setattr(measure, "CAPTION", "a hollow tone")
    torch.nn.init.ones_(Model.lm.weight)
    return loaded


def silent(text: str) -> None:
    pass


def test_systems_are_measured_once_and_shown(tones: list[str], tmp_path: Path) -> None:
    systems = [SYSTEMS[name] for name in ("MAGNeT", "guidance 1 → 1")]
    conditions = measure.Conditions(9, (0, 1))
    measure.measure(systems, tmp_path, None, conditions, silent)
    measure.measure_times(tmp_path, silent)
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "claims").iterdir()}
    assert {path.name for path in records} == {"magnet.json", "guidance-1-1.json", "bounds.json", "times.json"}
    measure.measure(systems, tmp_path, None, conditions, silent)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "claims").iterdir()} == records
    target = page.write(tmp_path)
    assert target is not None and {path.name for path in tmp_path.glob("*.png")} == {"claims.png", "claims-times.png"}
    text = target.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| MAGNeT |")]
    case = measure.case_of(tmp_path, "MAGNeT")
    about, value = case["about"], Judgement.read(case["judgement"]).scores()["instruments"][0]
    assert f"| MAGNeT | {value:.3g} [" in rows[0] and about["clips"] == 9 and "9 held-out captions with seeds [0, 1]" in text
    assert text.count("| [") == len(CLAIMS), "a row per claim"
    assert "times as fast as MusicGen with 1 clip (" in text


def test_records_of_other_conditions_or_weights_are_not_mixed(tones: list[str], tmp_path: Path) -> None:
    systems = [SYSTEMS[name] for name in ("MAGNeT", "guidance 1 → 1")]
    measure.measure(systems, tmp_path, None, measure.Conditions(9, (0,)), silent)
    path = measure.path_of(tmp_path, "guidance 1 → 1")
    record = json.loads(path.read_text())
    for key, value in (("weights", "0"), ("seeds", [0, 1]), ("clips", 8)):
        changed = json.loads(json.dumps(record))
        changed["cases"][0]["about"][key] = value
        path.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match="guidance-1-1.json was measured with other clips, seeds or weights"):
            page.write(tmp_path)
    measure.measure(systems, tmp_path, None, measure.Conditions(9, (0,)), silent)
    assert json.loads(path.read_text())["cases"] == record["cases"] and page.write(tmp_path)


def test_without_records_there_is_no_page(tmp_path: Path) -> None:
    assert page.write(tmp_path) is None and not list(tmp_path.iterdir())


def test_an_unknown_system_is_refused_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "claims", "--only", "nonsense", "--out", str(tmp_path / "out")]) == 2
    assert "--only nonsense: no system has such a name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
