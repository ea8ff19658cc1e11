"""The recipe of the bundled models, on runs that never ran: untrained weights and a written history."""
import json
import shutil
import typing as tp
from pathlib import Path

import pytest

from tools import zoo as build

from ..metrics.test_card import HISTORY

ToneSet = tp.Callable[[int, int], Path]


def fake_run(root: Path, name: str, release: Path, file: str, continue_from: str | None = None) -> Path:
    """A Dora run's folder, its checkpoint as AudioCraft writes it."""
    import torch
    from omegaconf import OmegaConf
    package = torch.load(release / file, weights_only=True)
    cfg = OmegaConf.create(package["xp.cfg"])
    cfg.continue_from, cfg.compression_model_checkpoint = continue_from, str(release / "compression_state_dict.bin")
    if "lm_model" not in cfg:
        del cfg["compression_model_checkpoint"]
    folder = root / name
    folder.mkdir()
    torch.save({"best_state": {"model": package["best_state"]}, "xp.cfg": cfg}, folder / "checkpoint.th")
    (folder / "history.json").write_text(json.dumps(HISTORY))
    (folder / ".argv.json").write_text(json.dumps(["solver=x"]))
    return folder


@pytest.fixture(scope="module")
def data(tone_set: ToneSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 12), ("evaluate", 4)):
        (root / "egs" / split).mkdir(parents=True)
        shutil.copy(tone_set(count, 0) / "data.jsonl", root / "egs" / split)
    (root / "folk.json").write_text(json.dumps({"arguments": {"clips": 16, "seed": 0}}))
    return root


def test_a_codec_of_two_runs(release_folder: Path, data: Path, tmp_path: Path) -> None:
    older = fake_run(tmp_path, "aaaa0000", release_folder, "compression_state_dict.bin")
    newer = fake_run(tmp_path, "bbbb0000", release_folder, "compression_state_dict.bin", str(older))
    out = tmp_path / "zoo" / "codec"
    arguments = ["codec", "--from", str(newer), "--data", str(data), "--out", str(out)]
    assert build.main(arguments) == 1                       # the older run's steps would be missing
    assert not out.exists()
    assert build.main([*arguments, "--after", str(older), "--clips", "3"]) == 0
    card = json.loads((out / "card.json").read_text())
    assert card["heldout"]["clips"] == 3 and card["heldout"]["si_snr_db"] < 0     # untrained
    assert card["training"]["steps"] == 2 * 3 * 500 and card["training"]["training_seconds"] == 660
    assert card["model"]["cardinality"] == 64 and card["model"]["kbps"] == 50 * 4 * 6 / 1000
    assert card["data"] == {"clips": 16, "seed": 0} and "--after" in card["made_with"]["command"]
    assert card["files"]["compression_state_dict.bin"] == (out / "compression_state_dict.bin").stat().st_size
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "card.json", "compression_state_dict.bin"]
    assert [path.name for path in out.parent.iterdir()] == ["codec"]          # nothing is left beside it


def test_a_magnet_with_its_codec(release_folder: Path, data: Path, tmp_path: Path) -> None:
    run = fake_run(tmp_path, "cccc0000", release_folder, "state_dict.bin")
    out = tmp_path / "magnet"
    card = build.build("magnet", str(run), [], out, data=str(data), clips=2)
    assert {"state_dict.bin", "compression_state_dict.bin"} == set(card["files"])
    assert card["files"]["state_dict.bin"] < 0.6 * (release_folder / "state_dict.bin").stat().st_size   # float16
    assert card["validation"]["best"]["ce_q1"] == 4.0
    assert card["validation"]["uniform"] == pytest.approx(4.1589, abs=1e-4)             # ln 64
    assert card["heldout"]["clips"] == 2 and card["heldout"]["instruments"] == 3
    assert "| best epoch | 2 |" in (out / "README.md").read_text()


def test_a_musicgen_with_its_codec(release_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                   ) -> None:
    from magnet_plugin.models import auxiliary as partners
    from tests.helpers.small_musicgens import musicgen_folder
    monkeypatch.setattr(partners, "frames", lambda seconds, rate: 20)          # it was trained on 30 s
    run = fake_run(tmp_path, "eeee0000", musicgen_folder(tmp_path / "release", release_folder), "state_dict.bin")
    out = tmp_path / "musicgen"
    card = build.build("musicgen", str(run), [], out, data=str(data), clips=2)
    assert (card["model"]["dim"], card["model"]["longest_clip_in_seconds"]) == (32, 30.0) and "span_len" not in card["model"]
    assert card["heldout"]["generated_audio_seconds"] == pytest.approx(2 * 20 / 50)
    with pytest.raises(ValueError, match="solver=musicgen, not of a magnet"):
        build.build("magnet", str(run), [], out, data=str(data))


def test_what_cannot_be_bundled_is_refused(release_folder: Path, data: Path, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run(tmp_path, "dddd0000", release_folder, "compression_state_dict.bin")
    out = tmp_path / "out"
    out.mkdir()
    (out / "card.json").write_text("the old one")
    with pytest.raises(ValueError, match="not of a magnet"):
        build.build("magnet", str(run), [], out, data=str(data))
    monkeypatch.setitem(build.MOST_BYTES, "compression_state_dict.bin", 1000)
    with pytest.raises(ValueError, match="too large.*compression_state_dict.bin has"):
        build.build("codec", str(run), [], out, data=str(data))
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("card.json", "the old one")]
    with pytest.raises(ValueError, match="no checkpoint found"):
        build.read_run("00000000")


def test_training_goes_through_dora(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(build.subprocess, "run", lambda command, check: calls.append(command))
    source = build.train("codec", ["optim.epochs=3", "seed=7"])
    assert calls[0][1:] == ["-m", "dora", "-P", "magnet_plugin", "run", "solver=compression/tiny_16khz",
                            "optim.epochs=3", "seed=7"]
    assert source.startswith("//sig/") and source != build.train("codec", ["optim.epochs=3", "seed=8"])
    with pytest.raises(SystemExit):
        build.main(["codec", "--from", "x", "--", "seed=7"])
