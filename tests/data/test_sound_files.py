"""Which files can be used: `magnet data scan`, `magnet data check` and the check before a training agree."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from magnet_plugin.data.check import Target, check
from magnet_plugin.data.listing import Item
from magnet_plugin.data.manifests import entry, read_manifest, write_manifest
from magnet_plugin.data.preflight import preflight
from magnet_plugin.data.report import printable
from magnet_plugin.data.scan import probe, scan
from magnet_plugin.data.sound_files import Header, probe_file, to_float32

from ..helpers.faulty_audio import RATE, SECONDS, UNUSABLE, USABLE, plain


@pytest.mark.parametrize("name", USABLE)
def test_unusual_files_can_be_used(tmp_path: Path, name: str) -> None:
    USABLE[name](tmp_path / name)
    found = probe_file(tmp_path / name)
    assert isinstance(found, Header) and 0 < found.seconds <= SECONDS + 0.1 and found.channels in (1, 7)
    assert not isinstance(probe(Item(tmp_path / name, name, {})), str)


@pytest.mark.parametrize("name", UNUSABLE)
def test_faulty_files_are_counted_and_named(tmp_path: Path, name: str) -> None:
    """By the scan, by the check, and before a training with a manifest that lists them."""
    source = tmp_path / "in"
    for good in ("a reel.wav", "a jig.wav"):
        plain(source / good)
    UNUSABLE[name](source / name)
    fault = probe_file(source / name)
    assert isinstance(fault, str) and "\n" not in fault and fault.startswith(str(source / name))
    (source / "list.csv").write_text(f"path,description\na reel.wav,a reel\na jig.wav,a jig\n{name},faulty\n")
    report = scan(source / "list.csv", tmp_path / "out", {"train": 1.0}, progress=False)
    assert report.unreadable == [fault] and report.counts["train"] == 2
    assert "1 unreadable, skipped:" in report.summary() and name in report.summary()
    [split] = check(source / "list.csv", Target(1.0, RATE, batch_size=2), progress=False).values()
    assert split.faults == [fault] and split.files == 2
    lines = [entry(source / each, SECONDS, RATE) for each in ("a reel.wav", "a jig.wav", name)]
    [problem] = preflight({"train": write_manifest(tmp_path / "egs", lines)}, 1.0, 2, RATE, 1.0, captions=False)
    assert name in problem
    assert ("1 of 3 files are missing" if name == "vanished.wav" else "1 files cannot be read") in problem


def test_samples_of_all_formats_get_the_same_range() -> None:
    whole = {torch.uint8: [0, 128, 192], torch.int16: [-2 ** 15, 0, 2 ** 14], torch.int32: [-2 ** 31, 0, 2 ** 30]}
    for dtype, values in whole.items():
        assert to_float32(torch.tensor(values, dtype=dtype)).tolist() == [-1.0, 0.0, 0.5]
    assert to_float32(torch.tensor([0.25], dtype=torch.float64)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"int64 are not supported; convert"):
        to_float32(torch.zeros(2, dtype=torch.int64))


def test_a_manifest_with_wrong_durations_is_reported(tmp_path: Path) -> None:
    plain(tmp_path / "a.wav")
    for stated, count in ((SECONDS, 0), (SECONDS + 0.05, 0), (10.0, 1)):
        folder = write_manifest(tmp_path / "egs", [entry(tmp_path / "a.wav", stated, RATE)])
        problems = preflight({"train": folder}, 1.0, 1, RATE, 1.0, captions=False)
        assert len(problems) == count
    assert "a.wav: 2.00 s and not 10.00 s" in problems[0] and "`datasource.train`" in problems[0]


@pytest.mark.parametrize(("line", "words"), [
    ('{"path": "/a.wav", "duration": "long"}', "duration of /a.wav is 'long'"),
    ('{"path": "/a.wav", "duration": NaN}', "duration of /a.wav is nan"),
    ('{"path": "/a.wav", "duration": -1}', "duration of /a.wav is -1"),
    ('{"path": "/a.wav", "duration": null}', "duration of /a.wav is None"),
    ('{"duration": 1.0}', "a line has no `path`"), ('["/a.wav"]', "a line has no `path`"), ("[" * 100_000, "is damaged")])
def test_a_manifest_with_invalid_lines_is_refused(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "data.jsonl").write_text(line)
    with pytest.raises(ValueError, match=r"data\.jsonl is damaged.*make the manifest again") as error:
        read_manifest(tmp_path)
    assert words in str(error.value)


CAPTIONS = {"emoji": "a 🎻 reel 🏴󠁧󠁢󠁳󠁣󠁴󠁿 für zwei", "long": "slow waltz " * 10_000,
            "controls": "a\x00 \x1b[31mred\x07 reel\u2028\x85in D",
            "half of a pair": "a \ud83d reel", "right to left": "\u202eleer a"}


@pytest.mark.parametrize("kind", CAPTIONS)
def test_captions_of_any_text_reach_the_model(tmp_path: Path, kind: str) -> None:
    import magnet_plugin
    magnet_plugin.register()
    from audiocraft.data.music_dataset import MusicDataset

    from magnet_plugin.models.conditioners import WordsConditioner
    text = CAPTIONS[kind]
    plain(tmp_path / "in" / "a.wav")
    (tmp_path / "in" / "a.json").write_text(json.dumps({"description": text, "bpm": "fast"}))
    report = scan(tmp_path / "in", tmp_path / "out", {"train": 1.0}, progress=False)
    dataset = MusicDataset.from_meta(report.folders["train"], segment_duration=1.0, num_samples=1, sample_rate=RATE,
                                     channels=1)
    assert check(tmp_path / "out", Target(1.0, RATE), progress=False)["train"].captions.missing == 0
    wav, info = dataset[0]
    assert info.description == text.replace("\ud83d", "?").strip() and wav.shape == (1, RATE)
    words = WordsConditioner(16, 64, 16)
    embedding, mask = words(words.tokenize([info.description]))
    assert embedding.isfinite().all() and mask.any()


def test_file_names_of_any_text_are_printed(tmp_path: Path) -> None:
    names = ["red\x1b[31m.wav", "new\nline.wav", "🎻.wav", b"latin-\xe9.wav".decode("utf-8", "surrogateescape")]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"no audio")
    plain(tmp_path / "in" / "a.wav", np.ones(100))
    report = scan(tmp_path / "in", tmp_path / "out", {"train": 1.0}, progress=False)
    assert len(report.unreadable) == 4
    report.summary().encode()
    for shown in (r"red\x1b[31m.wav", r"new\nline.wav", "🎻.wav", r"latin-\udce9.wav"):
        assert shown in report.summary() and printable(shown) == shown
