"""The instrument classifier on three synthetic timbres."""
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from magnet_plugin.metrics import instruments
from magnet_plugin.metrics.degradation import degrade
from magnet_plugin.metrics.instruments import InstrumentClassifier, accuracy, classifier_mel, timbre_features
from magnet_plugin.metrics.mel import mel_power

from ..helpers.tones import RATE, TIMBRES, ToneSet, tones, write_tones

Clips = tuple[torch.Tensor, list[str]]


@pytest.fixture(scope="module")
def unseen() -> Clips:
    rng = np.random.default_rng(1)
    labels = [name for name in TIMBRES for _ in range(30)]
    return torch.from_numpy(np.stack([tones(name, rng) for name in labels]))[:, None], labels


def test_timbres_are_classified(classifier: InstrumentClassifier, unseen: Clips) -> None:
    wav, labels = unseen
    assert classifier.instruments == sorted(TIMBRES)
    predicted = classifier.predict(wav, RATE)
    assert accuracy(predicted, labels) > 0.95
    shuffled = list(labels)
    random.Random(0).shuffle(shuffled)
    assert abs(accuracy(predicted, shuffled) - 1 / 3) < 0.15


def test_features_do_not_depend_on_the_level(unseen: Clips) -> None:
    loud = timbre_features(classifier_mel(unseen[0], RATE))
    assert torch.allclose(timbre_features(classifier_mel(unseen[0] * 0.01, RATE)), loud, atol=1e-3)


def test_timbres_are_classified_at_other_rates_in_stereo_and_with_noise(classifier: InstrumentClassifier, unseen: Clips,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    wav, labels = unseen
    seen: list[tuple[torch.Size, int]] = []

    def recording(wav: torch.Tensor, rate: int) -> torch.Tensor:
        seen.append((wav.shape, rate))
        return classifier_mel(wav, rate)

    monkeypatch.setattr(instruments, "classifier_mel", recording)
    upsampled = torch.nn.functional.interpolate(wav, scale_factor=2, mode="linear").expand(-1, 2, -1)
    assert accuracy(classifier.predict(upsampled, 2 * RATE), labels) > 0.9
    assert seen == [((len(wav), 2, RATE), RATE)]
    hiss = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0)) * wav.std(-1, keepdim=True)
    assert accuracy(classifier.predict(wav + 10 ** (-20 / 20) * hiss, RATE), labels) > 0.9


def test_random_labels_are_not_learned(unseen: Clips, tmp_path: Path) -> None:
    folder, rng = write_tones(tmp_path, 60, 2), random.Random(0)
    files = sorted(folder.glob("*.json"))
    names = [json.loads(path.read_text())["instrument"] for path in files]
    rng.shuffle(names)
    for path, name in zip(files, names, strict=True):
        path.write_text(json.dumps({"instrument": name}))
    wav, labels = unseen
    assert abs(accuracy(InstrumentClassifier.train(folder).predict(wav, RATE), labels) - 1 / 3) < 0.25


def test_training_is_deterministic(tone_set: ToneSet, unseen: Clips) -> None:
    one, other = (InstrumentClassifier.train(tone_set(12, 2), limit=9).pipeline for _ in range(2))
    rows = timbre_features(classifier_mel(unseen[0], RATE)).numpy()
    assert np.array_equal(one.decision_function(rows), other.decision_function(rows))


def test_limit_uses_only_the_first_clips(tone_set: ToneSet) -> None:
    assert InstrumentClassifier.train(tone_set(12, 2), limit=2).instruments == ["bright", "hollow"]


def test_degradation_attenuates_high_bands_and_adds_noise() -> None:
    power = mel_power(torch.randn(200, RATE // 2, generator=torch.Generator().manual_seed(0)), RATE, 40)
    degraded = degrade(power, torch.Generator().manual_seed(0))
    loss = 10 * torch.log10(power.mean(-1) / degraded.mean(-1))                     # [B, bands]
    assert degraded.shape == power.shape and (degraded > 0).all()
    assert abs(loss[:, :3].mean()) < 3 and loss[:, -3:].mean() > 5
    silent_bands = degrade(power * (torch.arange(40) < 20)[:, None], torch.Generator().manual_seed(0))[:, 20:]
    assert (silent_bands > 0).all()


def test_silence_is_classified_and_clips_that_are_too_short_are_refused(classifier: InstrumentClassifier) -> None:
    assert classifier.predict(torch.zeros(1, 1, RATE), RATE)[0] in TIMBRES
    with pytest.raises(ValueError, match="at least 0.25 s"):
        classifier.predict(torch.zeros(1, 1, 100), RATE)
    with pytest.raises(ValueError, match="not finite"):
        classifier.predict(torch.full((1, 1, RATE), float("nan")), RATE)


def test_unusable_training_sets_are_rejected(tone_set: ToneSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.jsonl.gz"):
        InstrumentClassifier.train(tmp_path)
    with pytest.raises(ValueError, match="at least two"):
        InstrumentClassifier.train(tone_set(12, 2), limit=1)
    folder = write_tones(tmp_path, 3, 2)
    (folder / "2.json").unlink()
    with pytest.raises(ValueError, match=r"2\.json has no `instrument`"):
        InstrumentClassifier.train(folder)
    with pytest.raises(ValueError, match="one label per clip"):
        accuracy(["a"], ["a", "b"])
