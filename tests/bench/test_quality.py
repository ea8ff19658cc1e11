"""`bench.quality`: seeds, likelihood, and records that are continued."""
import typing as tp
from pathlib import Path

import pytest
import torch

from magnet_plugin.bench import quality
from magnet_plugin.bench.settings import MUSICGEN
from magnet_plugin.metrics.features import ClipFeatures

from ..helpers.tones import RoundingCodec


class StubJudge(quality.Judge):
    """Scores that show which audio and tokens were scored."""

    def scores(self, audio: tp.Sequence[torch.Tensor]) -> dict[str, float]:
        return {"accuracy": float(audio[0].mean())}

    def likelihood(self, batches: tp.Sequence[torch.Tensor]) -> float:
        return float(sum(part.float().mean() for part in batches))


def judge_of(captions: list[str], model: tp.Any = None, kind: type[quality.Judge] = quality.Judge) -> quality.Judge:
    return kind(captions, [], tp.cast(tp.Any, None), model)


def test_every_caption_is_generated_once_per_seed() -> None:
    seen = []

    class Model:
        def generate(self, texts: list[str], return_tokens: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append((seed, len(texts)))
            return torch.full((len(texts), 1, 8), float(seed)), torch.full((len(texts), 4, 2), seed)

    judge = judge_of([f"tune {i}" for i in range(11)], kind=StubJudge)
    rows = judge.evaluate(Model(), [0, 2], lambda text: None)
    assert seen == [(0, 8), (8, 3), (2000, 8), (2008, 3)]
    assert [row["accuracy"] for row in rows] == [0.0, 2000.0] and [row["likelihood"] for row in rows] == [8.0, 4008.0]
    assert all(row["seconds"] >= 0 for row in rows)


def test_scores_are_relative_to_the_held_out_clips() -> None:
    class Loud:
        def predict(self, wav: torch.Tensor, sample_rate: int) -> list[str]:
            return ["loud" if peak > 0.5 else "soft" for peak in wav.amax((1, 2))]

    audio = [torch.rand(count, 1, 640, generator=torch.Generator().manual_seed(count)) for count in (3, 1)]
    reference = ClipFeatures(RoundingCodec(), tp.cast(tp.Any, Loud())).add_batches(audio)
    judge = quality.Judge(["a"] * 4, ["loud", "soft", "loud", "loud"], reference, tp.cast(tp.Any, None))
    assert judge.scores(audio) == {"accuracy": 0.75, "frechet": pytest.approx(0, abs=1e-6)}
    soft = judge.scores([wav / 4 for wav in audio])
    assert soft["accuracy"] == 0.25 and soft["frechet"] > 1


def test_the_likelihood_is_the_mean_over_all_tokens_given_their_captions() -> None:
    """Compared with one caption and codebook at a time."""
    import magnet_plugin
    magnet_plugin.register()                            # the bundled models use its conditioner
    from magnet_plugin.models.auxiliary import load_auxiliary
    from magnet_plugin.models.loaders import load_codec
    from magnet_plugin.models.rescorers import CausalRescorer
    from tests.helpers.small_models import conditions
    model = CausalRescorer(load_auxiliary(MUSICGEN, load_codec("//bundled/codec-16khz"), "cpu", "the model").lm)
    judge = judge_of(["a reel on the flute", "a waltz on the flute", "a jig on the flute"], model)
    tokens = torch.randint(0, 512, (3, 4, 12), generator=torch.Generator().manual_seed(0))
    expected = []
    for row, text in zip(tokens, judge.captions, strict=True):
        score = model.scorer(conditions(text), 1)
        expected += [score(row[None], k)[0, t, row[k, t]].log() for k in range(4) for t in range(12)]
    assert judge.likelihood([tokens[:2], tokens[2:]]) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-4)


def test_rows_of_an_earlier_record_are_not_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured: list[str] = []

    class Judge(StubJudge):
        def evaluate(self, model: tp.Any, *args: tp.Any) -> list[dict[str, float]]:
            measured.append(model.name)
            return [{"seconds": 1.0}]

    monkeypatch.setattr(quality.Judge, "load", lambda *args: (judge_of(["a", "b"], kind=Judge), {"real clips": {}}))
    monkeypatch.setattr(quality, "load", lambda setting: type("M", (), {"compression_model": None, "name": setting.name}))

    def run(seeds: list[int], only: str) -> list[str]:
        measured.clear()
        quality.measure("speed", tmp_path, 2, seeds, lambda text: None, tmp_path, [only])
        return measured

    assert run([0, 1], "guidance_every") == ["guidance_every=2"]
    assert run([0, 1], "guidance_") == ["guidance_interval=0..0.8"]
    assert run([0, 1, 2], "guidance_") == ["guidance_every=2", "guidance_interval=0..0.8"], "other seeds"
