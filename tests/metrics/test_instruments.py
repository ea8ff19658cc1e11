"""The instrument classifier on three synthetic timbres."""
import json
import random
import sys
import typing as tp
from pathlib import Path

import numpy as np
import pytest
import torch

from magnet_plugin.data.clips import batches, read_clips
from magnet_plugin.metrics import instruments
from magnet_plugin.metrics.channel import poor_channel
from magnet_plugin.metrics.instruments import InstrumentClassifier, agreement, mel_of, timbre
from magnet_plugin.metrics.mel import mel_power

from .conftest import RATE, TIMBRES, tones

ToneSet = tp.Callable[[int, int], Path]


@pytest.fixture(scope="module")
def classifier(tone_set: ToneSet) -> InstrumentClassifier:
    return InstrumentClassifier.train(tone_set(60, 0))


@pytest.fixture(scope="module")
def unheard() -> tuple[torch.Tensor, list[str]]:
    rng = np.random.default_rng(1)
    labels = [name for name in TIMBRES for _ in range(30)]
    return torch.from_numpy(np.stack([tones(name, rng) for name in labels]))[:, None], labels


def test_timbres_are_told_apart(classifier: InstrumentClassifier, unheard: tuple[torch.Tensor, list[str]]) -> None:
    wav, labels = unheard
    assert classifier.instruments == sorted(TIMBRES)
    assert classifier.accuracy(wav, labels) > 0.95
    shuffled = list(labels)
    random.Random(0).shuffle(shuffled)
    assert abs(classifier.accuracy(wav, shuffled) - 1 / 3) < 0.15


def test_level_changes_nothing(unheard: tuple[torch.Tensor, list[str]]) -> None:
    loud = timbre(mel_of(unheard[0], RATE))
    assert torch.allclose(timbre(mel_of(unheard[0] * 0.01, RATE)), loud, atol=1e-3)


def test_other_rates_channels_and_noise(classifier: InstrumentClassifier, unheard: tuple[torch.Tensor, list[str]],
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    wav, labels = unheard
    seen: list[tuple[torch.Size, int]] = []

    def watched(wav: torch.Tensor, rate: int) -> torch.Tensor:
        seen.append((wav.shape, rate))
        return mel_of(wav, rate)

    monkeypatch.setattr(instruments, "mel_of", watched)
    upsampled = torch.nn.functional.interpolate(wav, scale_factor=2, mode="linear").expand(-1, 2, -1)
    assert classifier.accuracy(upsampled, labels, sample_rate=2 * RATE) > 0.9
    assert seen == [((len(wav), 2, RATE), RATE)]
    hiss = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0)) * wav.std(-1, keepdim=True)
    assert classifier.accuracy(wav + 10 ** (-20 / 20) * hiss, labels) > 0.9


def test_labels_without_meaning_are_not_learned(tone_set: ToneSet) -> None:
    folder, rng = tone_set(60, 2), random.Random(0)
    files = sorted(folder.glob("*.json"))
    names = [json.loads(path.read_text())["instrument"] for path in files]
    rng.shuffle(names)
    for path, name in zip(files, names, strict=True):
        path.write_text(json.dumps({"instrument": name}))
    wav = torch.cat([wav for _, wav in batches(read_clips(tone_set(60, 3)), RATE)])
    labels = [clip.field("instrument") for clip in read_clips(tone_set(60, 3))]
    assert abs(InstrumentClassifier.train(folder).accuracy(wav, labels) - 1 / 3) < 0.25


def test_learning_is_repeatable(tone_set: ToneSet, unheard: tuple[torch.Tensor, list[str]]) -> None:
    folder = tone_set(12, 4)
    one, other = (InstrumentClassifier.train(folder, limit=9).pipeline for _ in range(2))
    rows = timbre(mel_of(unheard[0], RATE)).numpy()
    assert np.array_equal(one.decision_function(rows), other.decision_function(rows))


def test_a_poor_channel_takes_high_bands_and_adds_noise() -> None:
    power = mel_power(torch.randn(200, RATE // 2, generator=torch.Generator().manual_seed(0)), RATE, 40)
    poor = poor_channel(power, torch.Generator().manual_seed(0))
    loss = 10 * torch.log10(power.mean(-1) / poor.mean(-1))                         # [B, bands]
    assert poor.shape == power.shape and (poor > 0).all()
    assert abs(loss[:, :3].mean()) < 3 and loss[:, -3:].mean() > 5


def test_silence_and_short_clips(classifier: InstrumentClassifier) -> None:
    assert classifier.predict(torch.zeros(1, 1, RATE), RATE)[0] in TIMBRES
    with pytest.raises(ValueError, match="at least 0.25 s"):
        classifier.predict(torch.zeros(1, 1, 100), RATE)
    with pytest.raises(ValueError, match="not finite"):
        classifier.predict(torch.full((1, 1, RATE), float("nan")), RATE)


def test_errors_name_the_remedy(tone_set: ToneSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="data.jsonl.gz"):
        InstrumentClassifier.train(tmp_path)
    with pytest.raises(ValueError, match="two instruments"):
        InstrumentClassifier.train(tone_set(6, 5), limit=1)
    folder = tone_set(3, 5)
    (folder / "2.json").unlink()
    with pytest.raises(ValueError, match=r"2\.json has no `instrument`"):
        InstrumentClassifier.train(folder)
    with pytest.raises(ValueError, match="one label per clip"):
        agreement(["a"], ["a", "b"])
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        InstrumentClassifier.train(tone_set(6, 5))
