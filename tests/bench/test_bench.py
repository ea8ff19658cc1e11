"""`magnet bench`: turns and ratios, the bare products, the table, and a smoke run of each kind."""
import json
import time
import typing as tp
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from magnet_plugin.bench import decode, measure, peers, quality, table, train
from magnet_plugin.cli.main import main
from magnet_plugin.modules.attention import Band, Full
from tests.helpers.small_models import MagnetLMModel

CPU = torch.device("cpu")


def test_turns_are_taken_and_what_raises_is_told() -> None:
    order: list[str] = []

    def run(name: str, raising: bool = False) -> tp.Callable[[], None]:
        def call() -> None:
            order.append(name)
            if raising:
                raise RuntimeError("no\nkernel")
        return call

    found = measure.take_turns({"a": run("a"), "b": run("b", raising=True), "c": run("c")}, 2, CPU, lambda text: None)
    assert order == ["a", "b", "c", "a", "c", "a", "c"]
    assert found["b"] == {"error": "RuntimeError: no kernel"}
    assert len(found["a"]["seconds"]) == 2 and found["a"]["first"] >= 0


def test_ratios_are_taken_within_a_round() -> None:
    found = {"a": {"seconds": [1.0, 10.0, 4.0]}, "b": {"seconds": [0.5, 2.0, 4.0]}, "c": {"error": "x"}}
    assert measure.ratios(found, "a") == {"a": (1.0, 1.0, 1.0), "b": (2.0, 1.0, 5.0)}
    assert measure.ratios(found, "c") == {}


def test_peak_memory_sees_what_was_let_go_again() -> None:
    with measure.PeakMemory(CPU) as peak:
        held = torch.ones(40 * 2 ** 18)             # 40 MiB
        time.sleep(0.1)
        del held
    assert 35 < peak.mib < 80


def flops(run: tp.Callable[[], tp.Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("stage,context", [(0, Full()), (1, Band(5))])
def test_bare_products_are_those_of_the_forward_pass(stage: int, context: tp.Any) -> None:
    """The same number of operations as the model's linear layers and, where all is attended to, its attention."""
    size, length, batch = peers.Size(64, 2, 4), 48, 2
    model = peers.build(MagnetLMModel, size, length, CPU, torch.float32)
    linear = 2 * batch * length * 2 * sum(p.numel() for name, p in model.transformer.named_parameters()
                                          if p.dim() == 2 and "cross" not in name)
    cross = 2 * batch * length * 2 * size.dim ** 2 * size.layers                # queries and output, one branch
    head = 2 * 2 * batch * length * size.dim * peers.CARD
    attention = 2 * 2 * 2 * batch * length ** 2 * size.dim * size.layers if stage == 0 else 0
    got = flops(peers.bare_products(size, batch, length, context, CPU, torch.float32, packed=False))
    assert got == linear + cross + head + attention


def test_every_peer_starts_from_the_same_weights_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The smoke runs measure all that the large ones do; the table has a row for each."""
    for what in ("decode", "train"):
        assert main(["bench", what, "--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "decode-cpu.json").read_text())
    (found,) = record["cases"]
    assert "error" not in str(found), found
    assert set(found["decode"]) == {"AudioCraft MAGNeT", "engine", "plain", "guidance_every=2", "guidance_interval=0..0.8",
                                    "bfloat16", "int8"}
    text = (tmp_path / "bench.md").read_text()
    for name in [*found["decode"], *found["first stage"], "plugin, accumulate=2", "cache.tokens"]:
        assert f"| {name} |" in text
    assert record["made_with"]["measured_on"] in text and record["made_with"]["torch"] in text
    rates = json.loads((tmp_path / "train-cpu.json").read_text())["cases"][0]["machine"]
    assert set(rates) == {"float32", "bfloat16", "moved"} and all(min(values) > 0 for values in rates.values())
    before = text
    assert main(["bench", "table", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "bench.md").read_text() == before


def test_the_cases_cover_what_the_table_promises() -> None:
    cpu = {(case.size, case.batch) for case in decode.CPU}
    assert cpu >= {("tiny", 1), ("tiny", 4), ("dim512", 1), ("dim512", 4), ("dim1024", 1), ("dim1024", 4), ("small", 1)}
    assert all(case.rounds >= 5 for case in [*decode.CPU, *decode.GPU, *train.CPU, *train.GPU] if case.size != "small")
    gpu = {(case.size, case.batch, case.length) for case in decode.GPU}
    assert gpu >= {(size, batch, 500) for size in ("tiny", "small", "medium") for batch in (1, 8, 64)}
    assert ("small", 16, 1500) in gpu


@pytest.mark.parametrize("arguments,named", [(["decode", "--only", "huge"], "--only huge"),
                                             (["quality", "--table", "x"], "--table x")])
def test_wrong_arguments(arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments, "--device", "cpu", "--out", str(tmp_path)]) == 2
    assert named in capsys.readouterr().err


def test_a_failing_peer_and_spreads_in_the_table() -> None:
    found = {"engine": {"seconds": [0.2, 0.1234567, 0.3], "first": 1.0, "peak_mib": 12.3},
             "other": {"error": "NotImplementedError"}}
    lines = table.rows(found, {"engine": (2.0, 1.5, 2.5)}, "other")
    assert "| engine | 0.2 | 2.00 (1.50–2.50) | 1 | 12 MiB |" in lines
    assert "other does not run here: NotImplementedError" in lines
    assert table.spread([0.5, 0.25], "accuracy") == "38 % (25 %–50 %)" and table.spread([], "frechet") == "–"


def test_quality_is_judged_per_seed(tmp_path: Path) -> None:
    """With stand-ins for model and judge's ear: every seed and caption is generated once, and rows keep their figures."""
    judge = object.__new__(quality.Judge)
    judge.captions, seen = [f"tune {i}" for i in range(11)], []

    class Model:
        def generate(self, texts: list[str], return_tokens: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append((seed, len(texts)))
            return torch.full((len(texts), 1, 8), float(seed)), torch.full((len(texts), 4, 2), seed)

    judge.hear = lambda audio: [float(wav.mean()) for wav in audio]
    judge.figures = lambda heard: {"accuracy": heard[0]}
    judge.likelihood = lambda tokens: float(sum(part.float().mean() for part in tokens))
    rows = judge.try_out(quality.Setting("x"), [0, 2], lambda setting: Model(), lambda text: None)
    assert seen == [(0, 8), (8, 3), (2000, 8), (2008, 3)]
    assert [row["accuracy"] for row in rows] == [0.0, 2000.0] and [row["likelihood"] for row in rows] == [8.0, 4008.0]
    assert all(row["seconds"] >= 0 for row in rows)


def test_likelihood_is_that_of_the_tokens_given_their_captions() -> None:
    """Against one caption and codebook at a time."""
    from magnet_plugin.models.auxiliary import load_auxiliary
    from magnet_plugin.models.loaders import load_codec
    from magnet_plugin.models.rescorers import CausalRescorer
    from tests.helpers.small_models import conditions
    judge = object.__new__(quality.Judge)
    codec = load_codec("//bundled/codec-16khz")
    judge.score = CausalRescorer(load_auxiliary(quality.MUSICGEN, codec, "cpu", "the judge").lm)
    judge.captions = ["a reel on the flute", "a waltz on the flute", "a jig on the flute"]
    tokens = torch.randint(0, 512, (3, 4, 12), generator=torch.Generator().manual_seed(0))
    expected = []
    for row, text in zip(tokens, judge.captions):
        score = judge.score.scorer(conditions(text), 1)
        expected += [score(row[None], k)[0, t, row[k, t]].log() for k in range(4) for t in range(12)]
    assert judge.likelihood([tokens[:2], tokens[2:]]) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-4)


def test_rows_that_are_there_are_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Judge:
        bounds, clips = {"real clips": {"accuracy": 1.0}}, [1, 2]

        def __init__(self, *args: tp.Any) -> None:
            self.tried: list[str] = tried

        def try_out(self, setting: quality.Setting, *args: tp.Any) -> list[dict[str, float]]:
            self.tried.append(setting.name)
            return [{"seconds": 1.0}]

    tried: list[str] = []
    monkeypatch.setattr(quality, "Judge", Judge)
    monkeypatch.setattr(quality, "load", lambda setting: type("M", (), {"compression_model": None})())
    kept: list[dict] = []

    def measured(seeds: list[int], before: tp.Any) -> dict[str, tp.Any]:
        tried.clear()
        return quality.measure("speed", (Path(), Path()), 2, seeds, print, kept.append, ["guidance_"], before)

    first = measured([0, 1], None)
    assert tried == ["guidance_every=2", "guidance_interval=0..0.8"] == list(first["rows"]) and len(kept) == 2
    del first["rows"]["guidance_interval=0..0.8"]
    again = measured([0, 1], json.loads(json.dumps(first)))
    assert tried == ["guidance_interval=0..0.8"] and list(again["rows"]) == ["guidance_every=2", "guidance_interval=0..0.8"]
    measured([0, 1, 2], first)
    assert tried == ["guidance_every=2", "guidance_interval=0..0.8"]            # other seeds: nothing can be kept


def test_a_picture_of_a_quality_record(tmp_path: Path) -> None:
    entry = {"accuracy": 0.5, "frechet": 10.0, "seconds": 1.0}
    rows = {row.name: [entry, {**entry, "accuracy": 0.4}] for row in quality.RESCORING}
    record = {"kind": "quality", "command": "magnet bench quality", "date": "2026-01-01",
              "made_with": {"measured_on": "a CPU", "cores": 2, "threads": 1, "python": "3.11"},
              "cases": [{"table": "rescoring", "clips": 2, "seeds": [0, 1], "bounds": {"real clips": {"accuracy": 1.0}},
                         "rows": rows}]}
    (tmp_path / "quality-rescoring.json").write_text(json.dumps(record))
    text = table.write(tmp_path).read_text()
    assert "| rescored, w = 0.7 | 45 % (40 %–50 %) | 10 (10–10) | 1 (1–1) |" in text
    assert "| real clips | 100 % | – | – |" in text and "(quality-rescoring.png)" in text
    assert (tmp_path / "quality-rescoring.png").stat().st_size > 20_000
