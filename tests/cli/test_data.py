from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from magnet_plugin.cli.data import add_parser
from magnet_plugin.data.folk import dataset as folk_module


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["data", *map(str, words)])
    return int(args.run(args))


def test_folk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = []
    monkeypatch.setattr(folk_module, "make_folk", lambda *args: calls.append(args) or {"train": tmp_path})
    assert run("folk", "--out", tmp_path, "--clips", 9, "--seed", 2, "--sample-rate", 32000, "--duration", 3,
               "--jobs", 4) == 0
    assert calls == [(tmp_path, 9, 2, 32000, 3.0, 4)]
    assert capsys.readouterr().out == f"datasource.train={tmp_path}\n"


def test_wrong_settings_end_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("folk", "--out", tmp_path / "x", "--clips", 1) == 2
    assert "`clips`=1" in capsys.readouterr().err
    assert run("scan", tmp_path, "--out", tmp_path / "x", "--split", "train") == 2
    assert "--split train=.9" in capsys.readouterr().err


def test_scan(audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("scan", audio, "--out", tmp_path / "out", "--split", "train=.8", "valid=.2", "--min-duration", 1.5) == 0
    text = capsys.readouterr().out
    assert f"datasource.train={tmp_path / 'out' / 'egs' / 'train'}" in text
    assert "1 could not be read" in text and "1 are shorter" in text and "5 have no caption" in text
