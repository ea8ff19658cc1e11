"""The training run of the demo."""
import json
import sys

import pytest

from magnet_plugin.app import fine_tuning


def test_settings_are_read_back_literally(tmp_path, monkeypatch):
    from hydra.core.override_parser.overrides_parser import OverridesParser
    folder = tmp_path / "it's, a=b (odd) {na}me"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    settings = fine_tuning.run_settings(folder, folder.name, ["optim.epochs=1", "model_scale=xsmall"])
    values = {item.key_or_group: item.value() for item in OverridesParser.create().parse_overrides(settings)}
    assert str(values["continue_from"]) == str(folder)                  # absolute, because the run changes directory
    assert (str(values["datasource.folk.out"]), str(values["cache.tokens"])) == (f"{folder}/folk", f"{folder}/tokens")
    assert values["datasource.folk.clips"] == fine_tuning.CLIPS and values["model_scale"] == "xsmall"
    assert values["optim.epochs"] == 1                                  # overrides take precedence
    assert "continue_from='//bundled/magnet-16khz'" in fine_tuning.run_settings(folder, "//bundled/magnet-16khz", [])


def test_only_changed_settings_are_listed_without_absolute_paths(tmp_path):
    from magnet_plugin import register, train
    register()
    model = tmp_path / "models" / "release"
    model.mkdir(parents=True)
    settings = fine_tuning.run_settings(tmp_path / "out", str(model), ["dataset.batch_size=8", "optim.epochs=3"])
    rows = dict(fine_tuning.changed_settings(train.main.get_xp(settings), tmp_path / "out"))
    assert rows["solver"] == "magnet" and rows["optim.epochs"] == 3 and rows["continue_from"] == "release"
    assert "dataset.batch_size" not in rows                             # has its default value
    assert not {"datasource.folk.out", "cache.tokens", "logging.log_updates", "dataset.generate.num_samples"} & rows.keys()
    assert str(tmp_path) not in str(rows)


def test_failed_run_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match="exit code 1"):
        fine_tuning.train(tmp_path, [])


def test_epochs_are_read(tmp_path):
    history = [{"train": {"ce": 3.0, "duration": 5.0}, "valid": {"ce": 2.5, "duration": 1.0}},
               {"train": {"ce": 2.0, "duration": 4.0}, "valid": {"ce": 1.5, "duration": 0.5}, "generate": {}}]
    (tmp_path / "history.json").write_text(json.dumps(history))
    assert fine_tuning.read_epochs(tmp_path) == [(1, 3.0, 2.5, 6.0), (2, 2.0, 1.5, 4.5)]
