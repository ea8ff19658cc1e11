"""Hybrid models in files: loading, export, folders of AudioCraft's unreleased branch, and folders that do not fit."""
import logging
import shutil
import typing as tp
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import magnet_plugin

magnet_plugin.register()
from magnet_plugin.models import builders, checkpoints  # noqa: E402
from magnet_plugin.models import loaders as loading  # noqa: E402
from magnet_plugin.models.lm_hybrid import HybridMagnetLMModel  # noqa: E402
from magnet_plugin.models.magnet import MAGNeT  # noqa: E402
from magnet_plugin.models.settings import settings  # noqa: E402

from ..conftest import compose  # noqa: E402
from ..helpers.weights import scale_weights  # noqa: E402

SMALL = ["device=cpu", "model_scale=xsmall", "transformer_lm.card=64", "dataset.segment_duration=2"]


@pytest.fixture(scope="module")
def hybrid_folder(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release folder of an untrained hybrid model on the debug codec."""
    folder = tmp_path_factory.mktemp("hybrid")
    shutil.copy(release_folder / checkpoints.CODEC_FILE, folder)
    torch.manual_seed(0)
    cfg = compose("solver=magnet/hybrid", *SMALL)
    lm = scale_weights(builders.get_lm_model(cfg))
    checkpoints.release(lm.state_dict(), cfg, folder / checkpoints.LM_FILE)
    return folder


def altered(source: Path, target: Path, change: tp.Callable[[dict, tp.Any], None]) -> Path:
    """A copy of a release folder whose weights and config were changed."""
    shutil.copytree(source, target)
    package = checkpoints.load(source / checkpoints.LM_FILE)
    cfg, state = OmegaConf.create(package["xp.cfg"]), dict(package["best_state"])
    change(state, cfg)
    checkpoints.release(state, cfg, target / checkpoints.LM_FILE)
    return target


def test_a_hybrid_folder_generates_with_any_prompt_duration(hybrid_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "magnet_plugin"):
        model = MAGNeT.get_pretrained(str(hybrid_folder), device="cpu")
    assert isinstance(model.lm, HybridMagnetLMModel) and not caplog.records
    assert model.prompt_params == {"prompt_frames": 50, "prompt_cfg_coef": 3.0, "prompt_temperature": 1.0,
                                   "prompt_top_k": 250}
    few = {"decoding_steps": [3, 2, 2, 2]}
    tokens = {}
    for seconds in (0, 0.5, 2):
        model.set_generation_params(prompt_duration=seconds, **few)
        wav, tokens[seconds] = model.generate(["a fast reel"], return_tokens=True, seed=1)
        assert wav.shape == (1, 1, 32000) and tokens[seconds].shape == (1, 4, 100)
        assert settings(model)["prompt_frames"] == seconds * 50
    assert torch.equal(tokens[0.5][..., :22], tokens[2][..., :22]), "one seed gives one prompt"
    assert not torch.equal(tokens[0.5], tokens[2]) and not torch.equal(tokens[0], tokens[0.5])
    model.set_generation_params(prompt_duration=0.5, prompt_cfg_coef=1.0, prompt_temperature=0.5, prompt_top_k=10, **few)
    assert not torch.equal(tokens[0.5], model.generate(["a fast reel"], return_tokens=True, seed=1)[1])
    prompt = torch.randn(1, 1, 8000) * 0.1
    _, continued = model.generate_continuation(prompt, 16000, ["a reel"], return_tokens=True, seed=1)
    assert torch.equal(continued[..., :25], model.compression_model.encode(prompt)[0])
    seen: list[tuple[int, int]] = []
    model.set_custom_progress_callback(lambda done, total: seen.append((done, total)))
    model.generate_unconditional(1, progress=True)
    assert seen == [(i, 25 + 9) for i in range(1, 35)]


def test_invalid_prompt_settings_are_refused_and_defaults_follow_the_clip(hybrid_folder: Path, release_folder: Path) -> None:
    model = MAGNeT.get_pretrained(str(hybrid_folder), device="cpu")
    for options, word in (({"prompt_duration": 3.0}, "prompt_duration=3.0 s exceeds duration=2 s"),
                          ({"prompt_duration": -1}, "prompt_duration=-1"), ({"prompt_top_k": -1}, "prompt_top_k"),
                          ({"prompt_temperature": 0.0}, "prompt_temperature"), ({"prompt_cfg_coef": -2}, "prompt_cfg_coef")):
        with pytest.raises(ValueError, match=word):
            model.set_generation_params(**options)
    model.set_preset("music-10s")
    assert model.prompt_params["prompt_frames"] == 50, "a preset keeps the default prompt of a hybrid model"
    model.set_generation_params(duration=0.4)
    assert model.prompt_params["prompt_frames"] == 10, "by default, at most half of the clip"
    for extra in ({"cfg_coef": 3.0}, {"two_step_cfg": True}):
        with pytest.raises(ValueError, match="prompt_cfg_coef"):
            model.lm.generate(num_samples=1, max_gen_len=9, prompt_frames=3, **extra)
    plain = MAGNeT.get_pretrained(str(release_folder), device="cpu")
    with pytest.raises(ValueError, match="prompt_duration=1.0 s.*hybrid"):
        plain.set_generation_params(prompt_duration=1.0)
    plain.set_generation_params(prompt_duration=0)
    assert plain.prompt_params == {}


def test_a_folder_of_audiocrafts_unreleased_branch_is_a_hybrid(hybrid_folder: Path, tmp_path: Path,
                                                               caplog: pytest.LogCaptureFixture) -> None:
    """Its model is called transformer_lm_magnet, two settings are placeholders, and the layout is not described."""
    def change(state: dict, cfg: tp.Any) -> None:
        del cfg["hybrid"]
        cfg.lm_model = "transformer_lm_magnet"
        cfg.transformer_lm.segment_duration, cfg.transformer_lm.span_len = 0, -1

    folder = altered(hybrid_folder, tmp_path / "branch", change)
    with caplog.at_level(logging.WARNING, "magnet_plugin"):
        model = MAGNeT.get_pretrained(str(folder), device="cpu")
    assert isinstance(model.lm, HybridMagnetLMModel) and model.lm.span_len == 3
    assert "may differ from that of its training" in caplog.text
    ours = loading.load_magnet_lm(hybrid_folder, 50)
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in model.lm.state_dict().items())


def test_keys_that_do_not_fit_are_all_listed(hybrid_folder: Path, tmp_path: Path) -> None:
    def change(state: dict, cfg: tp.Any) -> None:
        state["linears.9.weight"] = state.pop("linears.3.weight")
        state["switch_emb.weight"] = torch.zeros(2, 2)
        state["out_norm.weight"] = torch.zeros(7)

    folder = altered(hybrid_folder, tmp_path / "other", change)
    with pytest.raises(ValueError) as error:
        loading.load_magnet_lm(folder, 50)
    message = str(error.value)
    for part in ("nothing was loaded", "missing keys: linears.3.weight;",
                 "unknown keys: linears.9.weight, switch_emb.weight;", "out_norm.weight: [7] instead of [64]"):
        assert part in message, message


def test_a_hybrid_with_another_pattern_or_unknown_settings_is_refused(hybrid_folder: Path, tmp_path: Path) -> None:
    def parallel(state: dict, cfg: tp.Any) -> None:
        cfg.codebooks_pattern.modeling = "parallel"

    def unknown(state: dict, cfg: tp.Any) -> None:
        OmegaConf.set_struct(cfg, False)
        cfg.transformer_lm.switch_embedding = True

    with pytest.raises(ValueError, match="codebooks_pattern.modeling=delay"):
        loading.load_magnet_lm(altered(hybrid_folder, tmp_path / "parallel", parallel), 50)
    with pytest.raises(ValueError, match="transformer_lm.*switch_embedding"):
        loading.load_magnet_lm(altered(hybrid_folder, tmp_path / "unknown", unknown), 50)


def test_audiocrafts_loader_reads_an_exported_hybrid(hybrid_folder: Path, tmp_path: Path) -> None:
    def change(state: dict, cfg: tp.Any) -> None:
        cfg.compression_model_checkpoint = str(hybrid_folder)

    out = checkpoints.export(str(altered(hybrid_folder, tmp_path / "source", change)), tmp_path / "out", half=True)
    from audiocraft.models import loaders
    lm = loaders.load_lm_model_magnet(out, compression_model_frame_rate=50)
    assert isinstance(lm, HybridMagnetLMModel)
    first = loading.load_magnet_lm(hybrid_folder, 50).state_dict()
    assert all(torch.allclose(value, first[key], atol=2e-2, rtol=1e-3) for key, value in lm.state_dict().items())
