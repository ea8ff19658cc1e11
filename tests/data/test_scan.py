"""Scanning a user's audio: captions, splits, skipped files, and an unchanged source folder."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_plugin.data.listing import REQUIRED_FIELDS
from magnet_plugin.data.manifests import read_manifest
from magnet_plugin.data.report import Report
from magnet_plugin.data.scan import scan

SPLITS = {"train": 0.5, "valid": 0.5}


def metadata_of(report: Report) -> dict[str, dict]:
    """Metadata by the name of the user's file, found as AudioCraft finds it."""
    found = {}
    for split in report.folders:
        for line in read_manifest(report.folders[split]):
            path = Path(line["path"])
            assert path.is_absolute() and path.suffix == path.suffix.lower()
            assert line["duration"] == soundfile.info(path).duration and line["sample_rate"] == 8000
            found[path.resolve().name] = json.loads(path.with_suffix(".json").read_text())
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_folder(audio: Path, tmp_path: Path) -> None:
    (audio / "one" / "take 0.txt").write_text("a slow\nsine\n")
    (audio / "one" / "take 1.json").write_text(json.dumps({"description": "a sine", "bpm": 90, "moods": "calm, plain"}))
    (audio / "one" / "take 2.json").write_text("{broken")
    before = files(audio)
    report = scan(audio, tmp_path / "out", SPLITS, progress=False, name_captions=False)
    assert files(audio) == before, "the user's folder is unchanged"
    facts = metadata_of(report)
    assert sorted(facts) == [f"take {i}.{'wav' if i % 2 else 'FLAC'}" for i in range(6)]
    assert all(set(REQUIRED_FIELDS) <= f.keys() for f in facts.values())
    assert facts["take 0.FLAC"]["description"] == "a slow sine"
    assert facts["take 1.wav"]["description"] == "a sine" and facts["take 1.wav"]["moods"] == ["calm", "plain"]
    assert [Path(p).name for p in report.missing_captions] == ["take 2.FLAC", "take 3.wav", "take 4.FLAC", "take 5.wav"]
    assert len(report.unreadable) == 1 and "broken.wav" in report.unreadable[0]
    assert len(report.skipped) == 1 and "phone.m4a" in report.skipped[0]
    assert len(report.warnings) == 1 and "take 2.json" in report.warnings[0]
    assert sum(report.counts[name] for name in SPLITS) == 6 and report.counts["generate"] == report.counts["valid"]
    assert sum(report.seconds[name] for name in SPLITS) == pytest.approx(21)
    for word in ("broken.wav", "phone.m4a", "4 without a caption", "take 2.json", "datasource.train=",
                 f"datasource.scan={tmp_path}/out"):
        assert word in report.summary()
    assert "and 2 more" in report.summary(most=2)


def test_missing_captions_come_from_names_and_are_marked(audio: Path, tmp_path: Path) -> None:
    (audio / "one" / "take 0.txt").write_text("a slow sine")
    (audio / "one" / "take 1.wav").rename(audio / "one" / "02 - Low_Sine.wav")
    report = scan(audio, tmp_path / "out", SPLITS, progress=False)
    facts = metadata_of(report)
    assert facts["02 - Low_Sine.wav"]["description"] == "one, Low Sine" and not report.missing_captions
    assert facts["take 0.FLAC"]["description"] == "a slow sine" and "caption_from" not in facts["take 0.FLAC"]
    assert len(report.name_captions) == 5 == sum(one.get("caption_from") == "name" for one in facts.values())
    assert "5 captions made from the names" in report.summary() and "02 - Low_Sine.wav: one, Low Sine" in report.summary()


def test_an_empty_split_is_reported(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", np.ones(100) * 0.1, 8000)
    report = scan(tmp_path / "in", tmp_path / "out", SPLITS, progress=False)
    empty = ({"train", "valid"} - report.folders.keys()).pop()
    assert any(f"split {empty} is empty" in line and f"datasource.{empty}" in line for line in report.warnings)


def test_groups_stay_together(audio: Path, tmp_path: Path) -> None:
    report = scan(audio, tmp_path / "out", SPLITS, group_by_folder=True, progress=False)
    folders = [{Path(line["path"]).parent.name for line in read_manifest(report.folders[name])} for name in SPLITS]
    assert sorted(map(len, folders)) == [1, 1] and folders[0] != folders[1]


def test_csv(audio: Path, tmp_path: Path) -> None:
    table = audio / "list.csv"
    table.write_text("\ufeffPath,description,split,bpm,key\n"
                     "one/take 0.FLAC,\"low, long\",test,120,C major\n"
                     f"{audio}/one/take 1.wav,,val,fast,\n"
                     "two/take 3.wav,a sine,train,,\n"
                     "two/take 3.wav,again,train,,\n"
                     "two/gone.wav,gone,train,,\n"
                     "two/phone.m4a,call,train,,\n")
    (audio / "one" / "take 1.txt").write_text("from the text file")
    report = scan(table, tmp_path / "out", {"train": 0.9, "valid": 0.1}, progress=False)
    assert {name: report.counts[name] for name in ("train", "valid", "evaluate")} == {
        "train": 1, "valid": 1, "evaluate": 1}
    facts = metadata_of(report)
    first = facts["take 0.FLAC"]
    assert (first["description"], first["bpm"], first["key"]) == ("low, long", 120.0, "C major")
    assert facts["take 1.wav"]["description"] == "from the text file" and "split" not in first
    assert len(report.skipped) == 2 and "row 5" in report.skipped[0] and "listed twice" in report.skipped[0]
    assert len(report.unreadable) == 1 and "gone.wav: no such file" in report.unreadable[0]
    assert report.missing_captions == []


@pytest.mark.parametrize(("text", "message"), [
    ("file,text\na.wav,b\n", "no column `path`; add `path`"),
    ("path,split\na.wav,holdout\n", "row 2: unknown split 'holdout'")])
def test_an_invalid_csv_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        scan(tmp_path / "list.csv", tmp_path / "out", progress=False)


def test_files_with_the_same_stem_keep_their_own_captions(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for ending in ("wav", "flac"):
        soundfile.write(folder / f"a.{ending}", np.ones(80) * 0.1, 8000)
    (folder / "list.csv").write_text("path,description\na.wav,as wav\na.flac,as flac\n")
    report = scan(folder / "list.csv", tmp_path / "out", SPLITS, progress=False)
    facts = metadata_of(report)
    assert {name: f["description"] for name, f in facts.items()} == {"a.wav": "as wav", "a.flac": "as flac"}


def test_short_files_are_skipped(audio: Path, tmp_path: Path) -> None:
    report = scan(audio, tmp_path / "out", SPLITS, min_duration=2.5, progress=False)
    assert len(metadata_of(report)) == 4 and len(report.too_short) == 2


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_text("no")
    with pytest.raises(ValueError, match=r"in has no audio file that can be used: 1 unreadable.*give .*\.wav, \.flac"):
        scan(tmp_path / "in", tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="does not exist"):
        scan(tmp_path / "nowhere", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_output_folders_are_checked(audio: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose another output folder"):
        scan(audio, tmp_path, progress=False)
    with pytest.raises(ValueError, match="choose another folder"):
        scan(audio, audio / "one", progress=False)
    assert len(files(audio)) == 8


def test_scanning_again_replaces_and_ignores_the_earlier_output(audio: Path) -> None:
    first = scan(audio, audio / "manifests", SPLITS, progress=False)
    (audio / "one" / "take 0.FLAC").unlink()
    second = scan(audio, audio / "manifests", SPLITS, progress=False)
    assert len(metadata_of(second)) == 5 and first.folders == second.folders
