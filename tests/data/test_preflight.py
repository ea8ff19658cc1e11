"""Messages before training say what is wrong and which setting to change."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_plugin.data.manifests import entry, write_manifest
from magnet_plugin.data.preflight import padding_share, preflight


def make(folder: Path, durations: list[float], caption: str | None = "a sine") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, duration in enumerate(durations):
        path = folder / f"{number}.wav"
        soundfile.write(path, np.zeros(int(duration * 8000)), 8000)
        path.with_suffix(".json").write_text(json.dumps({"description": caption}))
        lines.append(entry(path, duration, 8000))
    return write_manifest(folder / "egs", lines)


def test_good_data_give_no_messages(tmp_path: Path, folk: Path) -> None:
    folders = {"train": make(tmp_path / "a", [10.0] * 8), "valid": make(tmp_path / "b", [10.0] * 8)}
    assert preflight(folders, 1.0, 8, 8000) == []
    own = {name: folk / "egs" / name for name in ("train", "valid", "evaluate", "generate")}
    assert preflight(own, 2.0, 3, 16000, min_segment_ratio=1.0) == []


@pytest.mark.parametrize(("change", "words"), [
    ({"batch_size": 9}, "train: 8 clips are fewer than a batch of 9.*`dataset.batch_size`"),
    ({"segment_duration": 4.0}, "train: 50% .* is padding .8 of 8 .*lower `dataset.segment_duration` to 2.0"),
    ({"segment_duration": 2.0}, "train: 25% .* is padding .0 of 8 .*raise `dataset.min_segment_ratio` from 0.5 to 1"),
    ({"sample_rate": 16000}, "train: 8 of 8 files have a lower rate than `sample_rate`=16000"),
])
def test_settings_that_do_not_fit(tmp_path: Path, change: dict, words: str) -> None:
    folders = {"train": make(tmp_path / "a", [2.0] * 8)}
    settings = {"segment_duration": 1.0, "batch_size": 8, "sample_rate": 8000, "min_segment_ratio": 0.5}
    assert preflight(folders, **{**settings, "min_segment_ratio": 1.0}) == []
    problems = preflight(folders, **{**settings, **change})
    assert any(re.match(words, text) for text in problems), problems


def test_missing_or_damaged_files(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", [10.0] * 8)
    (tmp_path / "a" / "3.wav").unlink()
    (tmp_path / "a" / "5.wav").write_text("no")
    problems = preflight({"valid": folder}, 1.0, 8, 8000)
    assert len(problems) == 2
    assert "1 of 8 files are missing" in problems[0] and "3.wav" in problems[0] and "`datasource.valid`" in problems[0]
    assert "1 files cannot be read" in problems[1] and "5.wav" in problems[1]


def test_missing_captions(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", [10.0] * 4, caption=None)
    problems = preflight({"train": folder}, 1.0, 4, 8000)
    assert len(problems) == 1 and "4 of 4 clips have no description" in problems[0]
    assert "`conditioner=none`" in problems[0]
    assert preflight({"train": folder}, 1.0, 4, 8000, captions=False) == []
    (tmp_path / "a" / "0.json").unlink()
    assert len(preflight({"train": folder}, 1.0, 4, 8000)) == 1


def test_missing_empty_or_damaged_manifests(tmp_path: Path) -> None:
    write_manifest(tmp_path / "empty", [])
    write_manifest(tmp_path / "bad", [])
    (tmp_path / "bad" / "data.jsonl.gz").unlink()
    (tmp_path / "bad" / "data.jsonl").write_text("{")
    problems = preflight({name: tmp_path / name for name in ("none", "empty", "bad")}, 1.0, 1, 8000)
    assert len(problems) == 3 and all("`datasource." in text for text in problems)
    assert "is damaged" in problems[2]


def test_files_shared_with_train(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", [10.0] * 4)
    problems = preflight({"train": folder, "valid": folder}, 1.0, 4, 8000)
    assert len(problems) == 1 and problems[0].startswith("valid: 4 of its 4 files are in train, too")


@pytest.mark.parametrize("duration", [0.5, 1.0, 2.0, 2.5, 3.5, 4.0, 7.0, 30.0])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_padding_agrees_with_audiocrafts_crops(duration: float, ratio: float) -> None:
    """AudioCraft: seek = U(0, 1) * max(0, duration - segment * ratio), then the seconds that are left."""
    segment = 3.0
    seek = np.linspace(0, 1, 10_001) * max(0.0, duration - segment * ratio)
    kept = np.minimum(segment, duration - seek)
    assert padding_share(duration, segment, ratio) == pytest.approx(1 - kept.mean() / segment, abs=1e-3)


def test_mono_files_for_a_stereo_model(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", [10.0] * 4)
    assert preflight({"train": folder}, 1.0, 4, 8000) == []
    [problem] = preflight({"train": folder}, 1.0, 4, 8000, channels=2)
    assert "4 of 4 opened files are mono" in problem and "`datasource.train`" in problem
    soundfile.write(tmp_path / "a" / "2.wav", np.zeros((80000, 2)), 8000)
    [problem] = preflight({"train": folder}, 1.0, 4, 8000, channels=2)
    assert "3 of 4 opened files are mono" in problem
