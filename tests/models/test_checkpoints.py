"""Checkpoints: safe loading, resolving names, and export."""
import collections
import os
import typing as tp
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import magnet_plugin

magnet_plugin.register()
from magnet_plugin.models import checkpoints  # noqa: E402
from magnet_plugin.models import loaders as loading  # noqa: E402


class _Evil:
    def __reduce__(self) -> tuple[tp.Any, ...]:
        return os.system, ("echo this must not run",)


def test_training_checkpoints_load_and_files_with_code_are_refused(tmp_path: Path) -> None:
    ema = collections.defaultdict(dict)
    ema["model"]["weight"] = torch.ones(2)
    cfg = OmegaConf.create({"a": {"b": [1, 2.0, "x", True, None]}, "c": "${a.b}"})
    torch.save({"xp.cfg": cfg, "ema": {"state": ema, "count": 1.5}, "history": [{"train": {"ce": 1.0}}]}, tmp_path / "good")
    state = checkpoints.load(tmp_path / "good")
    assert state["xp.cfg"].c[2] == "x" and state["ema"]["state"]["model"]["weight"].sum() == 2
    torch.save({"best_state": {}, "payload": _Evil()}, tmp_path / "evil")
    with pytest.raises(ValueError, match="cannot be loaded safely.*system"):
        checkpoints.load(tmp_path / "evil")
    (tmp_path / "noise").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="noise"):
        checkpoints.load(tmp_path / "noise")


def test_nothing_in_the_package_switches_safe_loading_off() -> None:
    for path in Path(magnet_plugin.__file__).parent.rglob("*.py"):
        assert "weights_only=False" not in path.read_text(), path


def test_names_are_resolved_to_files(release_folder: Path, tmp_path: Path) -> None:
    assert checkpoints.resolve(release_folder) == release_folder / "state_dict.bin"
    assert checkpoints.resolve(release_folder, checkpoints.CODEC_FILE) == release_folder / "compression_state_dict.bin"
    assert checkpoints.resolve(tmp_path) is None and checkpoints.resolve("//sig/00000000") is None
    assert checkpoints.resolve("//bundled/codec-16khz").name == "compression_state_dict.bin"
    with pytest.raises(ValueError, match="no such bundled model; available: .*codec-16khz"):
        checkpoints.resolve("//bundled/no-such")
    with pytest.raises(ValueError, match="no checkpoint found"):
        checkpoints.load_package(tmp_path / "nowhere", checkpoints.LM_FILE)


def test_weights_that_do_not_match_are_refused_before_any_is_loaded() -> None:
    model = torch.nn.Linear(3, 2)
    before = model.weight.detach().clone()
    state = {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}
    with pytest.raises(ValueError) as error:
        checkpoints.load_weights(model, state, "FILE")
    for part in ("FILE", "missing keys: bias", "unknown keys: extra", "weight: [2, 4] instead of [2, 3]"):
        assert part in str(error.value)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("half", [False, True])
def test_an_exported_folder_has_the_same_weights(release_folder: Path, tmp_path: Path, half: bool) -> None:
    cfg_source = tmp_path / "source"
    cfg_source.mkdir()
    package = checkpoints.load(release_folder / checkpoints.LM_FILE)
    cfg = OmegaConf.create(package["xp.cfg"])
    cfg.compression_model_checkpoint = str(release_folder)
    checkpoints.release(package["best_state"], cfg, cfg_source / checkpoints.LM_FILE)
    out = checkpoints.export(str(cfg_source), tmp_path / "out", half=half)
    one, two = (loading.load_magnet_lm(folder, 50) for folder in (release_folder, out))
    for key, value in one.state_dict().items():
        assert torch.allclose(value, two.state_dict()[key], atol=2e-2 if half else 0, rtol=1e-3 if half else 0), key
    sizes = [(folder / checkpoints.LM_FILE).stat().st_size for folder in (release_folder, out)]
    assert sizes[1] < 0.6 * sizes[0] if half else abs(sizes[1] - sizes[0]) < 5000
    assert (out / checkpoints.CODEC_FILE).exists()


def test_export_notices_a_file_that_differs(release_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checkpoints.release

    def corrupting(state: dict, cfg: tp.Any, path: Path, half: bool = False) -> None:
        real({key: value + 1 if "linears.0" in key else value for key, value in state.items()}, cfg, path, half)

    monkeypatch.setattr(checkpoints, "release", corrupting)
    monkeypatch.setattr(checkpoints, "export_codec", lambda *args: None)
    with pytest.raises(ValueError, match="linears.0.weight differs"):
        checkpoints.export(str(release_folder), tmp_path / "out")


def test_audiocrafts_loaders_read_a_release_folder(release_folder: Path) -> None:
    from audiocraft.models import loaders
    lm = loaders.load_lm_model_magnet(release_folder, compression_model_frame_rate=50)
    assert type(lm).__module__ == "magnet_plugin.models.lm_magnet" and lm.cfg.dataset.segment_duration == 2
    assert loaders.load_compression_model(release_folder).frame_rate == 50


def test_a_musicgen_folder_is_refused_as_a_magnet(release_folder: Path, tmp_path: Path) -> None:
    package = checkpoints.load(release_folder / checkpoints.LM_FILE)
    cfg = OmegaConf.create(package["xp.cfg"])
    cfg.lm_model = "transformer_lm"
    checkpoints.release(package["best_state"], cfg, tmp_path / checkpoints.LM_FILE)
    with pytest.raises(ValueError, match="transformer_lm.*not a MAGNeT"):
        loading.load_magnet_lm(tmp_path, 50)
