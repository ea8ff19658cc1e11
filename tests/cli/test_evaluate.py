"""`magnet evaluate`: the arguments are checked first, and the table has a row for each model."""
import pytest

from magnet_plugin.cli import evaluate
from magnet_plugin.cli.main import main


@pytest.mark.parametrize("arguments, message", [
    (["//bundled/magnet-16khz", "--data", "no/such/folder"], "--data no/such/folder is not a folder"),
    (["//bundled/magnet-16khz", "--temperature", "0"], "temperature=0.0"),
])
def test_bad_arguments_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_only_a_magnet_takes_decoding_options() -> None:
    with pytest.raises(ValueError, match="is no MAGNeT and takes no decoding options"):
        evaluate.load("//bundled/musicgen-16khz", {"temperature": 2.0})
    assert type(evaluate.load("//bundled/musicgen-16khz", {})).__name__ == "AutoregressiveModel"


def test_the_table_has_a_row_for_each_model_and_a_column_for_each_score() -> None:
    rows = {"held-out clips": {"instruments": [0.5, 0.25, 0.75]},
            "one": {"frechet": [3.0, 2.0, 4.0], "instruments": [0.25, 0.125, 0.5]}}
    lines = evaluate.table(rows).splitlines()
    assert lines[0] == "|  | instrument recognised ↑ | Fréchet distance ↓ |"
    assert lines[2] == "| held-out clips | 0.5 [0.25, 0.75] | – |"
    assert lines[3] == "| one | 0.25 [0.125, 0.5] | 3 [2, 4] |"
