"""Texts of `magnet generate`: in files and tables."""
import argparse
from pathlib import Path

import pytest

from magnet_plugin.cli import requests
from magnet_plugin.cli.requests import Request


def test_a_file_has_one_text_per_line(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\ufeffa reel, fast\n\n  ein Stück \n", encoding="utf-8")
    assert requests.read_file(tmp_path / "texts.txt") == [Request("a reel, fast"), Request("ein Stück")]


def test_a_table_has_settings_of_their_types(tmp_path: Path) -> None:
    (tmp_path / "t.CSV").write_text('seed,text,decoding_steps,use_sampling,rescorer,duration\n'
                                    '-3,"a reel, fast","20,10,10,10",false,//bundled/musicgen-16khz,2.5\n\n,,5 1 1 1,,,\n')
    assert requests.read_file(tmp_path / "t.CSV") == [
        Request("a reel, fast", None, -3, params={"decoding_steps": [20, 10, 10, 10], "use_sampling": False,
                                           "rescorer": "//bundled/musicgen-16khz", "duration": 2.5}),
        Request(None, params={"decoding_steps": [5, 1, 1, 1]})]


@pytest.mark.parametrize("table, said", [
    ("seed\n1\n", "the first line must name the columns, one of them text"), ("", "the first line must name the columns"),
    ("text\n", "holds no texts"), ("text,sead\nx,1\n", "no setting 'sead'; did you mean seed"),
    ("text,seed\nx,1\ny,one\n", "line 3: seed='one' must be a whole number"),
    ("text,top_p\nx,2\n", "line 2: top_p=2.0"), ("text,duration\nx,-1\n", "line 2: duration=-1.0"),
    ("text,seed\na reel, fast,1\n", "line 2: there are more cells than columns"),
    ("text,negative\n,noise\n", "line 2: negative, bpm and key need a text"),
    ("text,bpm\n,90\n", "line 2: negative, bpm and key need"), ("text,bpm\nx,fast\n", "line 2: bpm='fast' must be a number"),
    ("text,bpm\nx,900\n", "line 2: bpm=900.0"), ("text,key\nx,H major\n", "line 2: key='H major'")])
def test_invalid_tables(table: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(ValueError, match=f"t.csv.*{said}"):
        requests.read_file(tmp_path / "t.csv")


def test_a_table_has_tempos_and_keys(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,bpm,key\na reel,92.5,\na waltz,,D minor\n")
    assert requests.read_file(tmp_path / "t.csv") == [Request("a reel", bpm=92.5), Request("a waltz", key="D minor")]


def test_files_that_hold_no_texts(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.txt").write_text("\n")
    for name, said in (("none.txt", "no such file"), ("binary.txt", "not a text file in UTF-8"), ("empty.txt", "no texts")):
        with pytest.raises(ValueError, match=said):
            requests.read_file(tmp_path / name)


@pytest.mark.parametrize("given, said", [
    ({}, "nothing to generate"), ({"text": ["x"], "unconditional": 2}, "give texts or --unconditional, not both"),
    ({"text": ["-"], "texts": Path("t")}, "give texts or --texts, not both"), ({"unconditional": 0}, "must be at least 1")])
def test_exactly_one_way_names_what_to_generate(given: dict, said: str) -> None:
    args = argparse.Namespace(**{"text": [], "texts": None, "unconditional": None, "continue_from": None, **given})
    with pytest.raises(ValueError, match=said):
        requests.requests_of(args)


def test_clips_without_a_text() -> None:
    args = argparse.Namespace(text=[], texts=None, unconditional=3, continue_from=None)
    assert requests.requests_of(args) == [Request(None)] * 3
    args = argparse.Namespace(text=[], texts=None, unconditional=None, continue_from=Path("x.wav"))
    assert requests.requests_of(args) == [Request(None)]
