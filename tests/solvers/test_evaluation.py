"""The stages `generate` and `evaluate`: parameters of the model, and metrics of its clips."""
import types
import typing as tp
import weakref
from pathlib import Path

import pytest
import torch
from audiocraft.modules.conditioners import ConditioningAttributes

from magnet_plugin.engine.engines import engine_for
from magnet_plugin.models import builders
from magnet_plugin.models.rescorers import MaskedRescorer
from magnet_plugin.solvers import evaluation

from ..conftest import compose
from ..helpers.small_models import MagnetLMModel, build


class Codec:
    """Frames of 320 samples; a token is the mean of a frame."""
    sample_rate, frame_rate, channels = 16000, 50, 1

    def encode(self, wav: torch.Tensor) -> tuple[torch.Tensor, None]:
        return wav.unflatten(-1, (-1, 320)).mean(-1), None

    def decode(self, tokens: torch.Tensor, scale: None) -> torch.Tensor:
        return tokens[:, :1].float().repeat_interleave(320, -1)

    def decode_latent(self, codes: torch.Tensor) -> torch.Tensor:
        return codes


@pytest.fixture
def setup(magnet_solver: tp.Any, monkeypatch: pytest.MonkeyPatch) -> tp.Callable:
    """Gives `magnet_solver` settings, two batches of three clips, a simple codec, and a model that generates noise whose
    level is its temperature. Returns the parameters of each `generate` call, which are added later."""
    def configure(*overrides: str) -> list[dict]:
        calls: list[dict] = []

        def generate(prompt: tp.Any, attributes: list, max_gen_len: int, num_samples: int, **params: tp.Any) -> torch.Tensor:
            calls.append(params)
            generator = torch.Generator().manual_seed(len(calls))
            return params["temp"] * torch.randn(len(attributes), 4, max_gen_len, generator=generator)
        attributes = ConditioningAttributes(text={"description": "a reel"})
        meta = types.SimpleNamespace(path="x.wav")
        infos = [types.SimpleNamespace(meta=meta, to_condition_attributes=lambda: attributes)] * 3
        batches = [(torch.randn(3, 1, 3200, generator=torch.Generator().manual_seed(number)), infos) for number in range(2)]
        cfg = compose("solver=magnet/tiny", "device=cpu", *overrides)
        for name, value in (("cfg", cfg), ("generation_params", builders.get_generation_options(cfg).plain()),
                            ("compression_model", Codec()), ("dataloaders", {"evaluate": batches}),
                            ("_current_stage", "evaluate"), ("_rescorer", None),
                            ("_current_formatter", magnet_solver.get_formatter("evaluate"))):
            monkeypatch.setattr(magnet_solver, name, value)
        monkeypatch.setattr(magnet_solver.model, "generate", generate)
        return calls
    return configure


def test_the_rescorer_of_the_config_is_loaded_once_and_used_by_every_batch(magnet_solver: tp.Any, setup: tp.Callable,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tp.Any] = []
    monkeypatch.setattr(evaluation, "load_rescorer", lambda *arguments: loaded.append(arguments) or "a rescorer")
    calls = setup("generate.lm.rescorer=//bundled/musicgen-16khz")
    for batch in magnet_solver.dataloaders["evaluate"]:
        magnet_solver.run_generate_step(batch, gen_duration=0.2)
    assert loaded == [("//bundled/musicgen-16khz", magnet_solver.compression_model, "cpu", "auto")]
    assert [(call["rescorer"], call["rescorer_weight"]) for call in calls] == [("a rescorer", 0.7)] * 2
    assert "rescorer" not in magnet_solver.generation_params, "the parameters are saved as JSON with every sample"


@pytest.mark.parametrize("overrides", [
    (), ("generate.lm.rescorer=//bundled/musicgen-16khz", "generate.lm.rescorer_weight=1")])
def test_a_rescorer_without_weight_is_not_loaded(magnet_solver: tp.Any, setup: tp.Callable, overrides: tuple) -> None:
    calls = setup(*overrides)
    magnet_solver.run_generate_step(magnet_solver.dataloaders["evaluate"][0], gen_duration=0.2)
    assert "rescorer" not in calls[0] and calls[0]["rescorer_weight"] == 1


def test_evaluate_measures_each_clip_without_a_download(magnet_solver: tp.Any, setup: tp.Callable) -> None:
    found = {}
    for temp in (1, 5):
        calls = setup("evaluate.metrics.instruments=false", f"generate.lm.temp={temp}")
        found[temp] = magnet_solver.evaluate_audio_generation()
        assert len(calls) == 2, "each batch is generated once"
    assert set(found[1]) == {"seconds_per_clip", "frechet"} and found[1]["frechet"] < found[5]["frechet"]
    calls = setup("evaluate.metrics.instruments=false", "evaluate.metrics.frechet=false")
    assert magnet_solver.evaluate_audio_generation() == {} and not calls


def test_clips_of_audiocrafts_metrics_are_not_generated_again(magnet_solver: tp.Any, setup: tp.Callable,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def upstream(self: tp.Any) -> dict:
        for batch in self.dataloaders["evaluate"]:
            self.run_generate_step(batch, gen_duration=0.2, **self.generation_params)
        return {"fad": 1.0}
    monkeypatch.setattr(evaluation.MusicGenSolver, "evaluate_audio_generation", upstream)
    calls = setup("evaluate.metrics.instruments=false")
    assert set(magnet_solver.evaluate_audio_generation()) == {"fad", "seconds_per_clip", "frechet"} and len(calls) == 2


def test_the_instrument_classifier_is_trained_on_the_training_set(magnet_solver: tp.Any, setup: tp.Callable, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    class Classifier:
        def predict(self, wav: torch.Tensor, sample_rate: int) -> list[str]:
            return ["fiddle", "flute", "fiddle"]

    def train(folder: str, limit: int) -> Classifier:
        trained.append((folder, limit))
        return Classifier()
    monkeypatch.setattr(evaluation.InstrumentClassifier, "train", train)
    (tmp_path / "x.json").write_text('{"instrument": "fiddle"}')
    setup("datasource.train=here", "evaluate.metrics.frechet=false",
          "metrics.instruments.clips=9")
    for _, infos in magnet_solver.dataloaders["evaluate"]:
        infos[0].meta.path = str(tmp_path / "x.wav")
    metrics = magnet_solver.evaluate_audio_generation()
    assert trained == [("here", 9)] and metrics["instrument_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("stage, inner", [("generate", "generate_audio"), ("evaluate", "evaluate_audio_generation")])
def test_a_stage_frees_the_prepared_weights_of_its_models(magnet_solver: tp.Any, monkeypatch: pytest.MonkeyPatch, stage: str,
                                                          inner: str) -> None:
    engines: list[tp.Any] = []
    rescorer = build(MagnetLMModel, card=magnet_solver.model.card)
    monkeypatch.setattr(magnet_solver, "_rescorer", MaskedRescorer(rescorer))

    def generates(fails: bool = False) -> dict:
        engine = engine_for(magnet_solver.model, "model", torch.float32)
        engine.static = True                    # as on a GPU
        magnet_solver.model.generate(max_gen_len=9, num_samples=1, decoding_steps=[1, 1, 1, 1], engine="lean")
        assert engine.decoders and engine is engine_for(magnet_solver.model, "model", torch.float32)
        engines.extend(map(weakref.ref, (engine, engine_for(rescorer, "model", torch.float32))))
        del engine                              # an exception would keep it with this frame
        return {"rtf": 1} if not fails else {}["a metric"]

    monkeypatch.setattr(magnet_solver, inner, generates)
    monkeypatch.setattr(magnet_solver.cfg.evaluate.metrics, "base", False)
    run_stage = getattr(evaluation.GeneratingSolver, stage)             # the test solver has stages that do nothing
    assert run_stage(magnet_solver) == {"rtf": 1}
    monkeypatch.setattr(magnet_solver, inner, lambda: generates(fails=True))
    with pytest.raises(KeyError):
        run_stage(magnet_solver)
    assert [engine() for engine in engines] == [None] * 4
