"""Release folders from strangers end in one clear line, quickly and without much memory."""
import os
import typing as tp
import wave
import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import magnet_plugin

magnet_plugin.register()
from magnet_plugin.models import checkpoints, untrusted  # noqa: E402
from magnet_plugin.models.loaders import load_magnet_lm  # noqa: E402

BUNDLED = checkpoints.BUNDLED / "magnet-16khz" / checkpoints.LM_FILE


@pytest.fixture(scope="module")
def package() -> dict[str, tp.Any]:
    return checkpoints.load(BUNDLED)


def bomb(levels: int = 30) -> str:
    return "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(levels))


CONFIGS: list[tuple[str, tp.Any, str]] = [
    ("aliases", bomb(), "repeats parts of itself by aliases"),
    ("deep", "a: " + "[" * 500 + "]" * 500, "nested more than 32 deep"),
    ("wide", "a: [" + "1," * 60_000 + "1]", "more than 50000 entries"),
    ("large", "a: " + "x" * (2 ** 20 + 1), "characters, more than"),
    ("list", "[1, 2]", "not a mapping of settings"), ("number", 7, "not a mapping"),
    ("loop", "a: ${b}\nb: ${a}", "cannot be read"),
    ("self", "transformer_lm: {dim: '${transformer_lm.dim}'}", "cannot be read"),
    ("syntax", "transformer_lm: {dim: '${'}", "cannot be read"), ("yaml", "a: [1", "cannot be read"),
    ("tag", "a: !!python/object/apply:os.system ['true']", "cannot be read"),
    ("function", "a: ${oc.decode:'1'}", "calls a function"), ("nested", "a: [{b: '${x:1}'}]", "calls a function"),
]


@pytest.mark.parametrize("cfg, words", [case[1:] for case in CONFIGS], ids=[case[0] for case in CONFIGS])
def test_hostile_configs_are_refused(cfg: tp.Any, words: str, tmp_path: Path) -> None:
    torch.save({"best_state": {"emb.0.weight": torch.zeros(2, 2)}, "xp.cfg": cfg}, tmp_path / checkpoints.LM_FILE)
    with pytest.raises(ValueError, match=words) as caught:
        checkpoints.load_package(tmp_path, checkpoints.LM_FILE)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_environment_variables_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "42")
    cfg = untrusted.read_config("a: ${oc.env:SECRET}\nb: ${oc.env:SECRET,1}/x\nc: ${a}\nd: ${missing}\ne: 3", "FILE")
    assert (cfg.a, cfg.b, cfg.c, cfg.e) == ("", "", "", 3) and os.environ["SECRET"] == "42"


def test_references_of_a_good_config_stay_and_resolve(package: dict[str, tp.Any]) -> None:
    cfg = untrusted.read_config(package["xp.cfg"], "FILE")
    plain = OmegaConf.create(package["xp.cfg"])
    assert cfg.transformer_lm == plain.transformer_lm and plain.sample_rate == cfg.sample_rate == 16000


def refused(folder: Path, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        load_magnet_lm(folder, 50)
    assert "\n" not in str(caught.value), caught.value


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / checkpoints.LM_FILE
    for content in (b"", b"hello\n" * 100, b"PK\x03\x04" + bytes(100), bytes(1000), b"\x80\x02}q\x00.", b"RIFF" + bytes(80)):
        path.write_bytes(content)
        refused(tmp_path, "not a checkpoint|cannot be loaded safely|contains")
    with wave.open(str(path), "wb") as audio:
        audio.setparams((1, 2, 16000, 1000, "NONE", ""))
        audio.writeframes(bytes(2000))
    refused(tmp_path, "cannot be loaded safely")
    for content in ([1, 2], torch.zeros(3), "text", 7, {"best_state": [1], "xp.cfg": "a: 1"},
                    {"best_state": {}, "xp.cfg": ""}, {"best_state": {"w": 1}, "xp.cfg": "a: 1"}):
        torch.save(content, path)
        refused(tmp_path, "not a checkpoint|not weights|is no tensor|but not best_state")


def test_an_archive_that_unpacks_to_more_is_refused(package: dict[str, tp.Any], tmp_path: Path) -> None:
    torch.save({"best_state": {"w": torch.zeros(5_000_000)}, "xp.cfg": "a: 1"}, tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as plain, zipfile.ZipFile(tmp_path / checkpoints.LM_FILE, "w",
                                                                      zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    refused(tmp_path, "unpacks to .* more than it has on the disk")


@pytest.mark.parametrize("setting, value", [("dim", 10 ** 9), ("num_layers", 10 ** 6), ("card", 10 ** 9), ("n_q", 10 ** 6),
                                            ("dim", "x"), ("num_layers", None)])
def test_sizes_that_are_not_those_of_the_weights_are_refused_before_building(
        package: dict[str, tp.Any], setting: str, value: tp.Any, tmp_path: Path) -> None:
    cfg = OmegaConf.create(package["xp.cfg"])
    cfg.transformer_lm[setting] = value
    torch.save({**package, "xp.cfg": OmegaConf.to_yaml(cfg)}, tmp_path / checkpoints.LM_FILE)
    refused(tmp_path, f"does not describe its weights: transformer_lm.*{setting}=")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(package: dict[str, tp.Any], value: float, tmp_path: Path) -> None:
    state = {key: weight.clone() for key, weight in package["best_state"].items()}
    state["out_norm.weight"][3] = value
    torch.save({**package, "best_state": state}, tmp_path / checkpoints.LM_FILE)
    refused(tmp_path, "out_norm.weight has values that are infinite or not a number")
