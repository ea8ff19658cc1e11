"""AudioCraft's own data sets read what is written here (importing AudioCraft takes 10 to 25 s)."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from magnet_plugin.data.scan import scan

RATE = 16000

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


def test_music(audiocraft: Any, folk: Path) -> None:
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


def test_sound(audiocraft: Any, folk: Path) -> None:
    _, sound = audiocraft
    data = sound.SoundDataset.from_meta(folk / "egs" / "generate", segment_duration=1.0, sample_rate=RATE, channels=1,
                                        num_samples=3)
    assert len(data[0][1].description.split()) > 4


def test_a_users_own_audio(audiocraft: Any, audio: Path, tmp_path: Path) -> None:
    """With and without captions, a `.FLAC` among them, which AudioCraft cannot open under that name."""
    music, sound = audiocraft
    (audio / "one" / "take 0.txt").write_text("a low sine")
    report = scan(audio, tmp_path / "out", {"train": 1.0}, progress=False)
    for kind in (music.MusicDataset, sound.SoundDataset):
        data = kind.from_meta(report.folders["train"], segment_duration=None, sample_rate=8000, channels=1,
                              shuffle=False)
        assert len(data) == 6
        found = [data[index] for index in range(6)]
        assert [wav.shape[-1] for wav, _ in found] == [8000 * (n + 1) for n in range(6)]
        assert [info.description for _, info in found] == ["a low sine"] + [None] * 5
