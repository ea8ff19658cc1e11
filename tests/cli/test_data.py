from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_plugin.cli.main import main
from magnet_plugin.data import scan
from magnet_plugin.data.folk import dataset, tunes


def run(*words: object) -> int:
    return main(["data", *map(str, words)])


def test_folk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = []
    monkeypatch.setattr(dataset, "make_folk", lambda *args, **kwargs: calls.append((*args, kwargs)) or {"train": tmp_path})
    assert run("folk", "--out", tmp_path, "--clips", 9, "--seed", 2, "--sample-rate", 32000, "--duration", 3,
               "--jobs", 4, "--soundfont", "fluid", "--soundfont", "timgm") == 0
    assert calls == [(tmp_path, 9, 2, 32000, 3.0, 4, {"soundfonts": ["fluid", "timgm"]})]
    assert capsys.readouterr().out == f"datasource.train={tmp_path}\n"


def test_errors_are_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("folk", "--out", tmp_path / "x", "--clips", 1) == 2
    assert capsys.readouterr().err == "magnet: error: clips=1 is too small; use at least one clip per split, here 3\n"
    assert run("scan", tmp_path / "nowhere", "--out", tmp_path / "x") == 2
    assert re.match("magnet: error: .*nowhere does not exist.*\n$", capsys.readouterr().err)
    with pytest.raises(SystemExit, match="2"):
        run("scan", tmp_path, "--out", tmp_path / "x", "--split", "train")
    assert "'train' is not NAME=SHARE; example: --split train=.9" in capsys.readouterr().err


def end_process(source: object) -> None:
    """Stands for a worker that the system kills."""
    os._exit(1)


def test_a_worker_that_dies_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MAGNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tunes, "parse", end_process)
    assert run("folk", "--out", tmp_path / "x", "--clips", 3, "--jobs", 2) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("magnet: ")]
    assert re.match("magnet: error: parsing tunes: one of 2 worker processes ended early.*--jobs", line)


def test_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        soundfile.write(tmp_path / "in" / f"{number}.wav", np.ones(8000 * (number + 1)) * 0.1, 8000)
    (tmp_path / "in" / "broken.wav").write_bytes(b"RIFF but not audio")
    assert run("scan", tmp_path / "in", "--out", tmp_path / "out", "--split", "train=.8", "valid=.2",
               "--min-duration", 1.5) == 0
    text = capsys.readouterr().out
    assert f"datasource.train={tmp_path / 'out' / 'egs' / 'train'}" in text
    assert "1 unreadable" in text and "1 shorter" in text and "5 without a caption" in text
    assert text.endswith(f"\nNext: magnet data check {tmp_path / 'out'}\n")


def test_check_prints_facts_and_settings_and_its_status_tells_whether_a_run_works(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for number in range(9):
        soundfile.write(tmp_path / "in" / f"reel {number}.wav", np.ones(8000 * 2) * 0.1, 8000)
    assert run("check", tmp_path / "in") == 1
    assert "run `magnet data scan FOLDER --out DIR`" in capsys.readouterr().out
    assert run("scan", tmp_path / "in", "--out", tmp_path / "out", "--split", "train=.6", "valid=.2", "evaluate=.2") == 0
    capsys.readouterr()
    assert run("check", tmp_path / "out", "--sample-rate", 8000) == 0
    text = capsys.readouterr().out
    assert "Set for `dora run`: dataset.segment_duration=2 dataset.batch_size=4" in text
    assert "8000 Hz; mono" in text and "from names" in text and "lower sample rate" not in text
    assert run("check", tmp_path / "out" / "egs" / "train", "--segment-duration", 2, "--batch-size", 2, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == [] and list(found["splits"]) == ["train"] and found["splits"]["train"]["median"] == 2.0
    assert found["splits"]["train"]["captions"]["missing"] == 0 and "lower sample rate" in found["advice"][0]["reason"]
    assert run("check", tmp_path / "nowhere") == 2
    with pytest.raises(SystemExit, match="2"):
        run("check", tmp_path, "--segment-duration", "0")
    assert "give a number above 0" in capsys.readouterr().err


def test_help_shows_the_default_splits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run("scan", "--help")
    shown = re.findall(r"(\w+)=(0\.\d+)", capsys.readouterr().out)
    assert {name: float(share) for name, share in shown} == scan.SCAN_SHARES


def test_check_reads_what_the_data_is_meant_for_from_a_model(tmp_path: Path, release_folder: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "reel.wav", np.ones(8000) * 0.1, 8000)
    run("check", tmp_path / "in", "--model", release_folder)
    text = capsys.readouterr().out
    assert "are shorter than 2 s" in text and "the model's 16000 Hz" in text       # those of the release folder
    run("check", tmp_path / "in", "--model", release_folder, "--segment-duration", 4)
    assert "are shorter than 4 s" in capsys.readouterr().out
    assert run("check", tmp_path / "in", "--model", "./nothing") == 2
    assert "./nothing does not exist here" in capsys.readouterr().err
