"""The `magnet runs` command."""
import json

import pytest

from magnet_plugin.cli import main as cli

from ..helpers.toy_grids import END, Dora, epoch


def test_runs_are_printed_with_what_comes_next(dora: Dora, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AUDIOCRAFT_DORA_DIR", str(dora.main.dora.dir))
    assert cli.main(["runs"]) == 0
    assert "No runs in" in capsys.readouterr().out
    done = dora.ran({"label": "done"}, epoch(5.0), epoch(3.0), epoch(2.0, **END))
    half = dora.ran({"label": "half"}, epoch(4.0))
    assert cli.main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [first] = [line.split() for line in lines if line.startswith("half")]
    assert first[:7] == ["half", half.name, "magnet/debug", "stopped", "1/3", "4.500", "4.000"]
    assert any(line.endswith("run solver=magnet/debug label=half") for line in lines)
    assert "    magnet export done --out done" in lines
    assert cli.main(["runs", "done", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["name"], found["signature"], found["state"]) == ("done", done.name, "finished")
    assert cli.main(["runs", "nobody"]) == 2
    assert "magnet: error: no run is called 'nobody'" in capsys.readouterr().err


def test_another_folder_and_a_wrong_one(dora: Dora, capsys: pytest.CaptureFixture[str]) -> None:
    dora.ran({"label": "half"}, epoch(4.0))
    assert cli.main(["runs", "--dir", str(dora.main.dora.dir)]) == 0
    assert "half" in capsys.readouterr().out
    assert cli.main(["runs", "--dir", str(dora.main.dora.dir / "nowhere")]) == 2
    assert "give the folder that holds xps/" in capsys.readouterr().err
