"""The stages `generate` and `evaluate`: what the model is told, and how what it makes is judged."""
import types
import typing as tp
from pathlib import Path

import pytest
import torch
from audiocraft.modules.conditioners import ConditioningAttributes

import magnet_plugin

magnet_plugin.register()
from magnet_plugin.models import builders  # noqa: E402
from magnet_plugin.solvers import evaluation as generating  # noqa: E402

from ..conftest import compose  # noqa: E402


class Codec:
    """Frames of 320 samples; a latent is the level of a frame."""
    sample_rate, frame_rate, channels = 16000, 50, 1

    def encode(self, wav: torch.Tensor) -> tuple[torch.Tensor, None]:
        return wav.unflatten(-1, (-1, 320)).mean(-1), None

    def decode(self, tokens: torch.Tensor, scale: None) -> torch.Tensor:
        return tokens[:, :1].float().repeat_interleave(320, -1)

    def decode_latent(self, codes: torch.Tensor) -> torch.Tensor:
        return codes


class Model:
    """Writes noise of a level that its settings name, and notes what it was told."""
    condition_provider = types.SimpleNamespace(conditioners={})

    def __init__(self) -> None:
        self.told: list[dict] = []

    def generate(self, prompt: tp.Any, attributes: list, max_gen_len: int, num_samples: int, **params: tp.Any
                 ) -> torch.Tensor:
        self.told.append(params)
        generator = torch.Generator().manual_seed(len(self.told))
        return params["temp"] * torch.randn(len(attributes), 4, max_gen_len, generator=generator)


def solver(*overrides: str, batches: int = 2) -> tp.Any:
    """As much of a solver as the two stages need."""
    cfg = compose("solver=magnet/tiny", "device=cpu", *overrides)
    one = object.__new__(generating.GeneratingSolver)
    one.__dict__.update(cfg=cfg, model=Model(), compression_model=Codec(), device="cpu", autocast_dtype=torch.bfloat16,
                        generation_params=builders.get_generation_options(cfg).plain())
    asked = ConditioningAttributes(text={"description": "a reel"})
    infos = [types.SimpleNamespace(meta=types.SimpleNamespace(path="x.wav"), to_condition_attributes=lambda: asked)] * 3
    loader = [(torch.randn(3, 1, 3200, generator=torch.Generator().manual_seed(number)), infos) for number in range(batches)]
    one.__dict__.update(dataloaders={"evaluate": loader}, _log_updates=1, _current_stage="evaluate",
                        log_progress=lambda name, loader, **kwargs: loader)
    return one


def test_the_rescorer_of_the_config_is_loaded_once_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tp.Any] = []

    def load(source: tp.Any, codec: tp.Any, device: tp.Any) -> str:
        loaded.append((source, codec, device))
        return "a rescorer"
    monkeypatch.setattr(generating, "load_rescorer", load)
    one = solver("generate.lm.rescorer=//bundled/musicgen-16khz")
    for batch in one.dataloaders["evaluate"]:
        one.run_generate_step(batch, gen_duration=0.2)
    assert loaded == [("//bundled/musicgen-16khz", one.compression_model, "cpu")]
    assert [told["rescorer"] for told in one.model.told] == ["a rescorer"] * 2
    assert {told["rescorer_weight"] for told in one.model.told} == {0.7}
    assert "rescorer" not in one.generation_params, "they are written beside every sample, as JSON"
    for overrides in ((), ("generate.lm.rescorer=//bundled/musicgen-16khz", "generate.lm.rescorer_weight=1")):
        alone = solver(*overrides)
        alone.run_generate_step(alone.dataloaders["evaluate"][0], gen_duration=0.2)
        assert "rescorer" not in alone.model.told[0] and alone.model.told[0]["rescorer_weight"] == 1
    assert len(loaded) == 1


def test_a_weight_without_a_rescorer_is_refused() -> None:
    with pytest.raises(ValueError, match="rescorer_weight=0.5 needs a rescorer"):
        builders.get_generation_options(compose("solver=magnet", "generate.lm.rescorer_weight=0.5"))


def test_evaluate_measures_without_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for temp in (1, 5):
        one = solver("evaluate.metrics.instruments=false", f"generate.lm.temp={temp}")
        found[temp] = one.evaluate_audio_generation()
        assert len(one.model.told) == 2, "each clip is generated once"
        assert one._judge is None
    assert set(found[1]) == {"seconds_per_clip", "frechet"} and found[1]["frechet"] < found[5]["frechet"]
    assert solver("evaluate.metrics.instruments=false", "evaluate.metrics.frechet=false").evaluate_audio_generation() == {}


def test_clips_that_audiocraft_generates_for_its_own_metrics_are_judged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def upstream(self: tp.Any) -> dict:
        for batch in self.dataloaders["evaluate"]:
            self.run_generate_step(batch, gen_duration=0.2, **self.generation_params)
        return {"fad": 1.0}
    monkeypatch.setattr(generating.MusicGenSolver, "evaluate_audio_generation", upstream)
    one = solver("evaluate.metrics.instruments=false")
    assert set(one.evaluate_audio_generation()) == {"fad", "seconds_per_clip", "frechet"} and len(one.model.told) == 2


def test_instruments_are_learnt_from_the_training_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    class Classifier:
        def predict(self, wav: torch.Tensor, sample_rate: int) -> list[str]:
            return ["fiddle", "flute", "fiddle"]

    def train(folder: str, limit: int) -> Classifier:
        asked.append((folder, limit))
        return Classifier()
    monkeypatch.setattr(generating.InstrumentClassifier, "train", train)
    (tmp_path / "x.json").write_text('{"instrument": "fiddle"}')
    one = solver("datasource.train=here", "evaluate.metrics.frechet=false", "metrics.instruments.clips=9")
    for _, infos in one.dataloaders["evaluate"]:
        infos[0].meta.path = str(tmp_path / "x.wav")
    found = one.evaluate_audio_generation()
    assert asked == [("here", 9)] and found["instrument_accuracy"] == pytest.approx(2 / 3)
