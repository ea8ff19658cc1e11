"""Safetensors next to AudioCraft's files."""
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import magnet_plugin

magnet_plugin.register()
from magnet_plugin.models import checkpoints, files, loaders  # noqa: E402


def test_an_export_loads_from_safetensors_alone(release_folder: Path, tmp_path: Path) -> None:
    out = checkpoints.export(str(release_folder), tmp_path / "out")
    one = loaders.load_magnet_lm(out, 50).state_dict()
    codec = loaders.load_codec(out).state_dict()
    for name in (checkpoints.LM_FILE, checkpoints.CODEC_FILE):
        (out / name).unlink()
    two = loaders.load_magnet_lm(out, 50)
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.items())
    assert two.cfg.dataset.segment_duration == 2
    assert all(torch.equal(value, loaders.load_codec(out).state_dict()[key]) for key, value in codec.items())
    state = checkpoints.load_as_checkpoint(out / "state_dict.safetensors")        # as continue_from reads it
    assert state["best_state"]["model"].keys() == one.keys() and state["xp.cfg"].solver == "magnet"


def test_a_reference_to_a_codec_survives(tmp_path: Path) -> None:
    files.write_reference("facebook/encodec_32khz", tmp_path / checkpoints.CODEC_FILE)
    path = tmp_path / "compression_state_dict.safetensors"
    files.write_safetensors(files.load(tmp_path / checkpoints.CODEC_FILE), path)
    assert files.load(path)["pretrained"] == "facebook/encodec_32khz"


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="noise.safetensors cannot be loaded: .*get it again"):
        files.load(tmp_path / "noise.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="weights without their config"):
        files.load(tmp_path / "foreign.safetensors")


def test_an_export_notices_safetensors_that_differ(release_folder: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupting(package: dict, path: Path) -> None:
        state = {key: value + 1 for key, value in package["best_state"].items()}
        files.write_safetensors({**package, "best_state": state}, path)

    monkeypatch.setattr(checkpoints, "write_safetensors", corrupting)
    with pytest.raises(ValueError, match="state_dict.safetensors: .* differs"):
        checkpoints.export(str(release_folder), tmp_path / "out")
