"""Manifests: splits, errors, and what AudioCraft's own data sets make of them."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from magnet_plugin.data.manifests import draw_splits, entry, read_manifest, write_manifest
from magnet_plugin.data.scan import scan

RATE = 16000


def test_added_files_do_not_move_others() -> None:
    names = [f"{i}.wav" for i in range(300)]
    shares = {"train": 0.8, "valid": 0.1, "evaluate": 0.1}
    few, many = draw_splits(names[:200], shares, 0), draw_splits(names, shares, 0)
    assert all(many[name] == split for name, split in few.items())
    assert many != draw_splits(names, shares, 1)
    counts = [list(many.values()).count(name) for name in shares]
    assert 210 <= counts[0] <= 270 and min(counts[1:]) >= 15


def test_no_split_is_empty_if_there_are_enough_files() -> None:
    for seed in range(20):
        chosen = draw_splits(["a", "b", "c"], {"train": 0.98, "valid": 0.01, "evaluate": 0.01}, seed)
        assert sorted(chosen.values()) == ["evaluate", "train", "valid"]
    assert draw_splits(["a"], {"train": 0.5, "valid": 0.5}, 0).keys() == {"a"}


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: b"no gzip", lambda raw: raw[:12] + b"~" + raw[13:]])
def test_a_damaged_manifest_is_named(tmp_path: Path, damage: Any) -> None:
    path = write_manifest(tmp_path, [entry(Path("a.wav"), 1.0, 8000)]) / "data.jsonl.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"data.jsonl.gz is damaged"):
        read_manifest(tmp_path)


@pytest.fixture(scope="module")
def audiocraft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("audiocraft")
    from audiocraft.data import music_dataset, sound_dataset
    from audiocraft.environment import AudioCraftEnvironment
    team = tmp_path_factory.mktemp("team") / "team.yaml"
    team.write_text("default: {dora_dir: /tmp/x, partitions: {global: a, team: a}, reference_dir: /tmp/x}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOCRAFT_CONFIG", str(team))
        patch.setenv("AUDIOCRAFT_CLUSTER", "default")
        AudioCraftEnvironment.reset()
        yield music_dataset, sound_dataset
    AudioCraftEnvironment.reset()


def test_audiocraft_reads_music(audiocraft: Any, folk: Path) -> None:
    music, _ = audiocraft
    data = music.MusicDataset.from_meta(folk / "egs" / "train", segment_duration=1.0, sample_rate=RATE,
                                        channels=1, num_samples=6, info_fields_required=True)
    for index in range(6):
        wav, info = data[index]
        assert wav.shape == (1, RATE) and wav.abs().max() > 0.01
        text = info.to_condition_attributes().text
        assert text["instrument"] in text["description"] and text["key"] in text["description"].lower()
        assert text["genre"] in text["description"] and isinstance(info.bpm, float) and info.keywords and info.title
    batch, infos = data.collater([data[0], data[1]])
    assert batch.shape[0] == len(infos) == 2


def test_audiocraft_reads_sounds(audiocraft: Any, folk: Path) -> None:
    _, sound = audiocraft
    data = sound.SoundDataset.from_meta(folk / "egs" / "generate", segment_duration=1.0, sample_rate=RATE, channels=1,
                                        num_samples=3)
    assert len(data[0][1].description.split()) > 4


def test_audiocraft_reads_scanned_audio(audiocraft: Any, audio: Path, tmp_path: Path) -> None:
    """With and without captions; AudioCraft could not open the `.FLAC` file under its own name."""
    music, sound = audiocraft
    (audio / "one" / "take 0.txt").write_text("a low sine")
    report = scan(audio, tmp_path / "out", {"train": 1.0}, progress=False, name_captions=False)
    for kind in (music.MusicDataset, sound.SoundDataset):
        data = kind.from_meta(report.folders["train"], segment_duration=None, sample_rate=8000, channels=1,
                              shuffle=False)
        assert len(data) == 6
        found = [data[index] for index in range(6)]
        assert [wav.shape[-1] for wav, _ in found] == [8000 * (n + 1) for n in range(6)]
        assert [info.description for _, info in found] == ["a low sine"] + [None] * 5
