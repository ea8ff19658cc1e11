"""The commands `magnet export` and `magnet inspect`."""
import json
from pathlib import Path

import pytest

from magnet_plugin.cli import main as cli

from ..helpers.toy_runs import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, release_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write_run(root, release_folder)
    return root


def test_a_run_is_exported_by_its_name_and_inspected(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AUDIOCRAFT_DORA_DIR", str(runs))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "mine", "--out", "out"]) == 0
    text = capsys.readouterr().out
    assert "Exported mine to out:" in text and "state_dict.safetensors" in text and "README.md" in text
    assert cli.main(["inspect", "out"]) == 0
    text = capsys.readouterr().out
    assert "safe to load       yes" in text and "licence            not stated" in text and "description (words)" in text
    assert "compression_state_dict.bin: codec: release" in text
    assert cli.main(["inspect", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["epochs"] == 3
    (tmp_path / "noise.bin").write_text("noise")
    assert cli.main(["inspect", "noise.bin"]) == 1
    assert "safe to load       NO" in capsys.readouterr().out
    assert cli.main(["export", "mine", "--out", "out"]) == 0
    assert "README.md existed and was kept" in capsys.readouterr().out


@pytest.mark.parametrize("words, said", [
    (["--private"], "--private needs --push OWNER/NAME"), (["--push", "mine"], "give OWNER/NAME"),
    (["--push", "me/mine"], "there is no token for the hub")])
def test_an_upload_is_checked_before_the_export(words: list[str], said: str, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "nothing", "--out", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
