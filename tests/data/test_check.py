"""Facts about a data set, and the advice that follows from them."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_plugin.data.advice import advise
from magnet_plugin.data.check import ALL, Target, check, find_splits
from magnet_plugin.data.scan import scan

RATE = 8000
TARGET = Target(segment_duration=2.0, sample_rate=RATE, batch_size=2)


def tone(folder: Path, name: str, seconds: float, caption: str | None = None, silent: float = 0.0, channels: int = 1,
         rate: int = RATE) -> None:
    """Write a tone whose last part is silent."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.sin(np.arange(round(seconds * rate)) * 0.3) * 0.5
    wave[len(wave) - round(silent * rate):] = 0
    soundfile.write(path, np.stack([wave] * channels, 1), rate)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)


def reasons(splits: dict, target: Target = TARGET) -> str:
    return "\n".join(one.reason for one in advise(splits, target))


def test_facts_of_a_folder(tmp_path: Path) -> None:
    tone(tmp_path, "a.wav", 2.0, "A reel in D", silent=0.5)
    tone(tmp_path, "b.wav", 4.0, "a reel in d ", channels=2)
    tone(tmp_path, "c.wav", 6.0, "дверь", rate=16000)
    tone(tmp_path, "jigs/d.wav", 8.0)
    (tmp_path / "e.wav").write_bytes(b"RIFF but not audio")
    [(name, split)] = check(tmp_path, TARGET, progress=False).items()
    assert name == ALL and split.files == 4 and len(split.faults) == 1 and "e.wav" in split.faults[0]
    assert (split.total, split.shortest, split.median, split.longest) == (20.0, 2.0, 5.0, 8.0)
    assert split.sample_rates == {8000: 3, 16000: 1} and split.channels == {1: 3, 2: 1}
    assert split.silence == pytest.approx(0.5 / 20, abs=0.01) and split.listened == 4 and split.padding == 0
    captions = split.captions
    assert (captions.missing, captions.from_names, captions.repeated, captions.wordless) == (0, 1, 2, 1)
    assert (captions.longest, captions.vocabulary) == (4, 5)                # a reel in d jigs
    assert "no Latin letters" in reasons({name: split}) and advise({name: split}, TARGET)[0].needed


def test_long_files_are_heard_in_pieces(tmp_path: Path) -> None:
    tone(tmp_path, "a.wav", 200.0, "x", silent=100.0)
    [split] = check(tmp_path, TARGET, progress=False).values()
    assert split.silence == pytest.approx(0.5, abs=0.02)
    assert "50% of the audio is silence" in reasons({"train": split})


def test_a_scanned_folder_a_split_and_a_manifest_are_found(tmp_path: Path) -> None:
    for number in range(6):
        tone(tmp_path / "in", f"reel {number}.wav", 2.0)
    report = scan(tmp_path / "in", tmp_path / "out", progress=False)
    assert list(find_splits(tmp_path / "out")) == ["train", "valid", "evaluate", "generate"]
    manifest = report.folders["train"]
    assert list(find_splits(manifest)) == list(find_splits(manifest / "data.jsonl.gz")) == ["train"]
    train = check(tmp_path / "out", TARGET, progress=False)["train"]
    assert train.captions.from_names == train.files == 4 and train.captions.missing == 0
    for wrong, words in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "in" / "reel 1.wav", "neither a folder")):
        with pytest.raises(ValueError, match=words):
            find_splits(wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no audio"):
        find_splits(tmp_path / "empty")


def settings(splits: dict, target: Target) -> list[str]:
    return [one.setting for one in advise(splits, target) if one.setting]


def test_settings_follow_from_the_durations_and_the_number_of_clips(tmp_path: Path) -> None:
    for number in range(7):
        tone(tmp_path, f"{number}.wav", 2.56, "x")
    [split] = check(tmp_path, TARGET, progress=False).values()
    assert settings({"train": split}, TARGET) == []
    longer = Target(segment_duration=5.0, sample_rate=RATE, batch_size=16)
    [split] = check(tmp_path, longer, progress=False).values()
    assert split.padding == pytest.approx(1 - 2.56 / 5)
    assert settings({"train": split}, longer) == ["dataset.segment_duration=2.5", "dataset.batch_size=4"]
    loose = Target(segment_duration=2.0, sample_rate=RATE, batch_size=2, min_segment_ratio=0.2)
    [split] = check(tmp_path, loose, progress=False).values()
    assert settings({"train": split}, loose) == ["dataset.min_segment_ratio=1"]


def test_what_a_run_needs_is_told_apart_from_what_could_be_better(tmp_path: Path) -> None:
    for number in range(4):
        tone(tmp_path / "in", f"{number}.wav", 2.0, None if number else "x " * 65)
    scan(tmp_path / "in", tmp_path / "out", {"train": 0.5, "valid": 0.25, "evaluate": 0.25}, progress=False)
    splits = check(tmp_path / "out", Target(2.0, 16000, 2, 2), progress=False)
    advice = advise(splits, Target(2.0, 16000, 2, 2))
    needed = "\n".join(one.reason for one in advice if one.needed)
    better = "\n".join(one.reason for one in advice if not one.needed)
    assert "2 of 2 files have no caption" in needed and "no caption" not in better
    raw = {"train": check(tmp_path / "in", TARGET, progress=False)[ALL]}
    some = [one for one in advise(raw, TARGET) if "no caption" in one.reason]
    assert "3 of 4 files have no caption" in some[0].reason and not some[0].needed
    assert "longest caption has 65 words" in better and "lower sample rate" in better and "are mono" in better
    train = json.loads(json.dumps({"path": str(tmp_path / "gone.wav"), "duration": 2.0, "sample_rate": RATE}))
    (tmp_path / "out" / "egs" / "valid" / "data.jsonl.gz").unlink()
    (tmp_path / "out" / "egs" / "evaluate" / "data.jsonl.gz").unlink()
    (tmp_path / "out" / "egs" / "evaluate" / "data.jsonl").write_text(json.dumps(train))
    splits = check(tmp_path / "out", TARGET, progress=False)
    assert {"the split valid has no files" in one.reason for one in advise(splits, TARGET) if one.needed} == {True, False}
    assert "gone.wav: no such file" in reasons(splits)


def test_files_of_train_in_another_split_are_reported(tmp_path: Path) -> None:
    tone(tmp_path, "a.wav", 2.0, "x")
    [split] = check(tmp_path, TARGET, progress=False).values()
    assert "1 of the 1 files of valid are in train" in reasons({"train": split, "valid": split})
