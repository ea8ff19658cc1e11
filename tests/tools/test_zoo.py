"""The builder of the bundled models, on untrained weights with a written history."""
import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from magnet_plugin.models import autoregressive
from magnet_plugin.models.checkpoints import BUNDLED, CODEC_FILE, LM_FILE, load
from tools import zoo

from ..helpers.small_musicgens import musicgen_folder
from ..helpers.tones import write_tones
from .test_model_card import HISTORY


def fake_run(root: Path, name: str, release: Path, file: str, continue_from: str | None = None, codec: str | None = None
             ) -> Path:
    """Write the folder of a Dora run, with a checkpoint as AudioCraft writes it."""
    package = load(release / file)
    cfg = OmegaConf.create(package["xp.cfg"])
    cfg.continue_from = continue_from
    if "lm_model" in cfg:
        cfg.compression_model_checkpoint = codec or str(release / CODEC_FILE)
    folder = root / name
    folder.mkdir()
    torch.save({"best_state": {"model": package["best_state"]}, "xp.cfg": cfg}, folder / "checkpoint.th")
    (folder / "history.json").write_text(json.dumps(HISTORY))
    (folder / ".argv.json").write_text(json.dumps(["solver=x"]))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 12), ("evaluate", 4)):
        (root / "egs" / split).mkdir(parents=True)
        write_tones(root / "egs" / split, count, 0)
    (root / "folk.json").write_text(json.dumps({"arguments": {"clips": 16, "seed": 0}}))
    return root


def test_building_a_codec_sums_the_runs_that_trained_it(release_folder: Path, data: Path, tmp_path: Path) -> None:
    older = fake_run(tmp_path, "aaaa0000", release_folder, CODEC_FILE)
    newer = fake_run(tmp_path, "bbbb0000", release_folder, CODEC_FILE, str(older))
    out = tmp_path / "zoo" / "codec"
    arguments = ["codec", "--from", str(newer), "--data", str(data), "--out", str(out)]
    assert zoo.main(arguments) == 1                       # the older run's steps would be missing
    assert not out.exists()
    assert zoo.main([*arguments, "--after", str(older), "--clips", "3", "--note", "A note."]) == 0
    card = json.loads((out / "card.json").read_text())
    assert card["heldout"]["clips"] == 3 and card["heldout"]["si_snr_db"] < 0     # untrained
    assert card["training"]["steps"] == 2 * 3 * 500 and card["training"]["training_seconds"] == 660
    assert card["model"]["cardinality"] == 64 and card["model"]["kbps"] == 50 * 4 * 6 / 1000
    assert card["data"] == {"clips": 16, "seed": 0} and "--after" in card["made_with"]["command"]
    assert card["files"] == {CODEC_FILE: (out / CODEC_FILE).stat().st_size}
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "card.json", CODEC_FILE]
    assert [path.name for path in out.parent.iterdir()] == ["codec"]              # no temporary files remain
    card["about"] = ["old"]
    (out / "card.json").write_text(json.dumps(card))
    assert zoo.main(["codec", "--rewrite-card", "--out", str(out)]) == 0
    assert json.loads((out / "card.json").read_text()) == {**card, "about": zoo.ABOUT["codec"]}
    assert "A note." in (out / "README.md").read_text() and zoo.ABOUT["codec"][0] in (out / "README.md").read_text()


def test_building_a_magnet_includes_its_codec(release_folder: Path, data: Path, tmp_path: Path) -> None:
    run = fake_run(tmp_path, "cccc0000", release_folder, LM_FILE)
    out = tmp_path / "magnet"
    card = zoo.build("magnet", str(run), [], out, data=str(data), clips=2)
    assert {LM_FILE, CODEC_FILE} == set(card["files"]) and "best_state" in load(out / CODEC_FILE)
    assert card["files"][LM_FILE] < 0.6 * (release_folder / LM_FILE).stat().st_size     # float16
    assert card["validation"]["best"]["ce_q1"] == 4.0
    assert card["validation"]["uniform"] == pytest.approx(4.1589, abs=1e-4)             # ln 64
    assert card["heldout"]["clips"] == 2 and card["heldout"]["instruments"] == 3
    assert "| best epoch | 2 |" in (out / "README.md").read_text()


def test_building_a_musicgen(release_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoregressive, "clip_frames", lambda seconds, codec: 20)          # it was trained on 30 s
    run = fake_run(tmp_path, "eeee0000", musicgen_folder(tmp_path / "release", release_folder), LM_FILE)
    out = tmp_path / "musicgen"
    card = zoo.build("musicgen", str(run), [], out, data=str(data), clips=2)
    assert (card["model"]["dim"], card["model"]["longest_clip_in_seconds"]) == (32, 30.0) and "span_len" not in card["model"]
    assert card["heldout"]["generated_audio_seconds"] == pytest.approx(2 * 20 / 50)
    with pytest.raises(ValueError, match="solver=musicgen, not of a magnet"):
        zoo.build("magnet", str(run), [], out, data=str(data))


def test_a_model_on_the_bundled_codec_refers_to_it(data: Path, tmp_path: Path) -> None:
    run = fake_run(tmp_path, "ffff0000", BUNDLED / "magnet-16khz", LM_FILE, codec="//bundled/codec-16khz")
    out = tmp_path / "magnet"
    card = zoo.build("magnet", str(run), [], out, data=str(data), clips=1)
    assert load(out / CODEC_FILE)["pretrained"] == "//bundled/codec-16khz" and card["files"][CODEC_FILE] < 10_000
    assert card["model"]["cardinality"] == 512


def test_unusable_models_are_rejected(release_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                      ) -> None:
    run = fake_run(tmp_path, "dddd0000", release_folder, CODEC_FILE)
    out = tmp_path / "out"
    out.mkdir()
    (out / "card.json").write_text("the old one")
    with pytest.raises(ValueError, match="not of a magnet"):
        zoo.build("magnet", str(run), [], out, data=str(data))
    monkeypatch.setitem(zoo.MAX_BYTES, CODEC_FILE, 1000)
    with pytest.raises(ValueError, match=f"too large.*{CODEC_FILE} has"):
        zoo.build("codec", str(run), [], out, data=str(data))
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("card.json", "the old one")]
    with pytest.raises(ValueError, match="has no checkpoint"):
        zoo.read_run("00000000")


def test_training_goes_through_dora(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(zoo.subprocess, "run", lambda command, check: calls.append(command))
    source = zoo.train("codec", ["optim.epochs=3", "seed=7"])
    assert calls[0][1:] == ["-m", "dora", "-P", "magnet_plugin", "run", "solver=compression/tiny_16khz",
                            "optim.epochs=3", "seed=7"]
    assert source.startswith("//sig/") and source != zoo.train("codec", ["optim.epochs=3", "seed=8"])
    with pytest.raises(SystemExit):
        zoo.main(["codec", "--from", "x", "--", "seed=7"])
