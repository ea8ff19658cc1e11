"""`magnet bench scale`: the tables of docs/scale.md, plans and errors on the command line."""
from pathlib import Path

import pytest

from magnet_plugin.bench.scale import report
from magnet_plugin.bench.scale.hardware import Assumptions
from magnet_plugin.cli.main import main

ROOT = Path(__file__).parents[2]


def test_the_document_is_up_to_date(tmp_path: Path) -> None:
    """`magnet bench scale --doc docs/scale.md` changes nothing."""
    between = (ROOT / "docs/scale.md").read_text().split(report.BEGIN)[1].split(report.END)[0]
    copy = tmp_path / "scale.md"
    copy.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    assert main(["bench", "scale", "--doc", str(copy)]) == 0
    assert copy.read_text() == f"before\n{report.BEGIN}{between}{report.END}\nafter\n"
    assert copy.with_suffix(".png").stat().st_size > 20_000
    copy.write_text("no marks")
    with pytest.raises(ValueError, match="--doc"):
        report.write(copy, Assumptions())


def test_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", "--solver", "magnet/audio_magnet_16khz", "--scale", "tiny", "--gpus", "4",
                 "--batch", "64", "--duration", "5", "--gpu", "V100-32", "--mode", "ddp",
                 "--set", "optim.accumulate=2"]) == 0
    out = capsys.readouterr().out
    assert "| DDP | 4 | 64 | 16 |" in out and "Computed, not measured" in out and "FSDP" not in out


def test_a_mode_that_the_config_does_not_support_becomes_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", "--gpus", "8"]) == 0
    out = capsys.readouterr().out
    assert "| DDP | 8 |" in out and "| FSDP |" not in out and "No rows for FSDP" in out and "optim.optimizer=adamw" in out


@pytest.mark.parametrize("arguments,named", [
    (["--gpu", "K80"], "--gpu K80: choose one of H200"), (["--gpus", "8", "--batch", "100"], "set it to a multiple of 8"),
    (["--gpus", "12"], "--gpus 12"), (["--gpu", "V100-32", "--precision", "bfloat16"], "set --precision float16"),
    (["--precision", "int8"], "--precision int8"), (["--efficiency", "2"], "--efficiency 2"),
    (["--solver", "magnet/hybrid"], "--solver"), (["--scale", "huge"], "model_scale=huge"),
    (["--set", "optim.optimizer=sgd"], "optim.optimizer=sgd"), (["--set", "transformer_lm.dropout=0.1"], "dropout=0.1"),
    (["--set", "optim.accumulate=99"], "optim.accumulate=99"), (["--set", "compression_model_checkpoint=x"], "checkpoint=x"),
    (["--set", "transformer_lm.checkpointing=xformers_mm"], "checkpointing=xformers_mm"),
    (["--mode", "fsdp"], "set optim.optimizer=adamw"),
    (["--mode", "fsdp", "--solver", "magnet/audio_magnet_16khz", "--set", "optim.accumulate=2"], "set optim.accumulate=1")])
def test_unsupported_settings_are_errors_of_one_line(arguments: list[str], named: str,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", *arguments]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1 and named in errors[0]
