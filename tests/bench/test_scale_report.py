"""`magnet bench scale`: the tables and commands of docs/scale.md, estimates and errors on the command line."""
import re
import shlex
from pathlib import Path

import pytest

from magnet_plugin import train
from magnet_plugin.bench.scale import report
from magnet_plugin.bench.scale.hardware import Assumptions
from magnet_plugin.cli.main import main

from ..conftest import compose

PAGE = Path(__file__).parents[2] / "docs/scale.md"


def test_the_document_is_up_to_date(tmp_path: Path) -> None:
    """`magnet bench scale --doc docs/scale.md` changes nothing."""
    copy = tmp_path / "scale.md"
    text = PAGE.read_text()
    between = text.split(report.BEGIN)[1].split(report.END)[0]
    copy.write_text(text.replace(between, "\nold\n"))
    assert main(["bench", "scale", "--doc", str(copy)]) == 0
    assert copy.read_text() == text
    copy.write_text("no marks")
    with pytest.raises(ValueError, match="--doc"):
        report.write(copy, Assumptions())


def check_batch_sizes(overrides: list[str], gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what each of `gpus` ranks does with the batch sizes at the start of a run."""
    monkeypatch.setattr("flashy.distrib.world_size", lambda: gpus)
    cfg = train.per_rank(compose(*overrides))
    assert 1 <= cfg.optim.accumulate <= cfg.dataset.batch_size


def test_launch_commands_of_the_document_start_on_their_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = re.findall(r"^dora launch -g (\d+) (.+)$", PAGE.read_text(), re.M)
    assert len(commands) == 12 and "64" in dict(commands), "one for each of the paper's trainings"
    for gpus, words in commands:
        check_batch_sizes(shlex.split(words), int(gpus), monkeypatch)


def test_example_commands_of_the_document_run(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^magnet (bench scale .*?)(?: +#.*)?$", PAGE.read_text(), re.M)
    assert len(commands) == 4
    for command in commands:
        assert main(shlex.split(command)) == 0, command
        assert "No rows for" not in capsys.readouterr().out, command


def test_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", "--solver", "magnet/audio_magnet_16khz", "--scale", "tiny", "--gpus", "4",
                 "--batch", "64", "--duration", "5", "--gpu", "A100-40", "--mode", "ddp",
                 "--set", "optim.accumulate=2"]) == 0
    out = capsys.readouterr().out
    assert "| DDP | 4 | 64 | 16 |" in out and "Computed, not measured" in out and "FSDP" not in out
    assert "To train on 4 GPUs, also set dataset.train.batch_size=64." in out


def test_settings_that_a_plan_names_start_on_its_gpus(capsys: pytest.CaptureFixture[str],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    solver = "magnet/audio_magnet_16khz"
    assert main(["bench", "scale", "--solver", solver, "--gpus", "8", "48", "--batch", "480", "--mode", "ddp"]) == 0
    named = dict(re.findall(r"^To train on (\d+) GPUs, also set (.*)\.$", capsys.readouterr().out, re.M))
    assert named == {"8": "dataset.train.batch_size=480",
                     "48": "dataset.batch_size=48 dataset.train.batch_size=480 dataset.evaluate.batch_size=48"}
    check_batch_sizes([f"solver={solver}", *named["48"].split()], 48, monkeypatch)


def test_a_mode_that_the_config_does_not_support_becomes_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", "--gpus", "8"]) == 0
    out = capsys.readouterr().out
    assert "| DDP | 8 |" in out and "| FSDP |" not in out and "No rows for FSDP" in out and "optim.optimizer=adamw" in out
    assert "To train on" not in out, "the config's batch sizes suit 8 GPUs"


@pytest.mark.parametrize("arguments,named", [
    (["--gpus", "8", "--batch", "100"], "set --batch to a multiple of 8"),
    (["--gpus", "40"], "set --batch to a multiple of 40"),
    (["--gpus", "12"], "--gpus 12"),
    (["--efficiency", "2"], "--efficiency 2"),
    (["--solver", "magnet/hybrid"], "--solver"), (["--scale", "huge"], "model_scale=huge"),
    (["--set", "autocast_dtype=float8"], "precision=float8"),
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


@pytest.mark.parametrize("option,value,known", [("--gpu", "K80", "A100-80"), ("--precision", "int8", "bfloat16")])
def test_unknown_choices_name_the_known_ones(option: str, value: str, known: str,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "scale", option, value])
    assert re.search(f"error: .*{option}.*{value}.*{known}", capsys.readouterr().err)
