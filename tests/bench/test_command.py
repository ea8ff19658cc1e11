"""`magnet bench` on the command line."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

from magnet_plugin.cli.main import main


@pytest.mark.integ
def test_smoke_runs_measure_every_row_of_the_tables(tmp_path: Path) -> None:
    for what in ("decode", "train", "startup"):
        assert main(["bench", what, "--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    records = {what: json.loads((tmp_path / f"{what}-cpu.json").read_text()) for what in ("decode", "train", "startup")}
    assert "error" not in str([record["cases"] for record in records.values()])
    (decode,), (train,), (startup,) = (record["cases"] for record in records.values())
    assert set(decode["decode"]) == {"AudioCraft MAGNeT", "fast path", "reference path", "guidance_every=2",
                                     "guidance_interval=0..0.8", "bfloat16", "int8"}
    text = (tmp_path / "bench.md").read_text()
    for name in [*decode["decode"], *decode["first stage"], *train["update"], "cache.tokens", *startup["commands"]]:
        assert f"| {name} |" in text
    made = records["decode"]["made_with"]
    assert made["measured_on"] in text and made["torch"] in text
    assert set(train["machine"]) == {"float32", "bfloat16", "moved"}
    assert all(min(values) > 0 for values in train["machine"].values())
    assert startup["commands"]["magnet generate"]["seconds"][0] > startup["commands"]["magnet --help"]["seconds"][0] > 0


@pytest.mark.parametrize("arguments,message", [
    (["decode", "--only", "medium"], "--only medium: decode has no case of this size on cpu; give one of tiny, dim512"),
    (["decode", "--device", "foo"], "--device foo: this is not a supported device; give cpu, cuda or cuda:N"),
    (["train", "--device", "mps"], "--device mps: this is not a supported device; give cpu, cuda or cuda:N"),
    (["decode", "--device", "cuda"], "--device cuda: torch finds no CUDA device; give cpu, or run `magnet doctor`"),
    (["quality", "--only", "nothing"], "--only nothing: no row of the table speed has such a name; give part of one of")])
def test_errors_name_the_option_and_valid_values(arguments: list[str], message: str, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", *arguments, "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"magnet: error: {message}") and printed.count("\n") == 1


@pytest.mark.parametrize("arguments,message", [
    (["decode", "--only", "huge"], "argument --only: invalid choice: 'huge' (choose from 'tiny', 'dim512'"),
    (["quality", "--table", "x"], "argument --table: invalid choice: 'x' (choose from 'speed', 'rescoring')"),
    (["quality", "--seeds", "0"], "argument --seeds: 0 is too small; give 1 or more"),
    (["quality", "--clips", "many"], "argument --clips: 'many' is not an integer; give 1 or more")])
def test_values_are_checked_while_parsing(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", *arguments])
    assert message.replace("'", "") in capsys.readouterr().err.replace("'", "")         # quotes depend on Python's version


def test_help_does_not_import_torch() -> None:
    script = "import sys\nfrom magnet_plugin.cli import bench, bench_scale\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
