"""`magnet demo`: its checks and all of its stages."""
import json
import sys

import pytest

from magnet_plugin.app import demo
from magnet_plugin.decoding.options import GenerationOptions

from .test_page import Reader, linked_file

MODEL = "//bundled/magnet-16khz"


def test_missing_matplotlib_is_reported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match="pip install matplotlib"):
        demo.check_arguments(tmp_path, "any")


def test_invalid_arguments_are_reported_before_the_work(tmp_path):
    with pytest.raises(ValueError, match="none-of-this-name"):
        demo.run_demo(tmp_path / "out", "//bundled/none-of-this-name")
    with pytest.raises(ValueError, match="does not exist"):
        demo.run_demo(tmp_path / "out", str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        demo.run_demo(tmp_path / "file", "facebook/any")
    assert not (tmp_path / "out").exists()


def test_only_changed_decoding_options_are_listed():
    assert demo.changed_options(GenerationOptions()) == []
    assert demo.changed_options(GenerationOptions(decoding_steps=(20, 10))) == []      # default of two codebooks
    assert demo.changed_options(GenerationOptions(top_p=0.8, decoding_steps=(5, 5))) == [
        ("top_p", 0.8), ("decoding_steps", [5, 5])]


@pytest.mark.integ
def test_all_stages(tmp_path, monkeypatch):
    overrides = ["optim.epochs=2", "optim.updates_per_epoch=2", "dataset.batch_size=2", "dataset.valid.num_samples=2",
                 "dataset.evaluate.num_samples=2", "dataset.evaluate.batch_size=2"]
    monkeypatch.setattr(demo, "CLIPS", 24)
    monkeypatch.setattr(demo.fine_tuning, "CLIPS", 24)
    out = tmp_path / "de mo"
    index = demo.run_demo(out, MODEL, overrides)
    reader = Reader(index.read_text())
    for link in reader.links():
        assert linked_file(index, link).stat().st_size > 100, link
    for text in (*demo.PROMPTS, MODEL, "data set", "training", "imports", "export", "loading", "generation",
                 "optim.updates_per_epoch", "dataset.batch_size"):
        assert text in reader.text, text
    for text in (str(tmp_path), "decoding_steps", "top_p", "schedule.lr_scheduler"):     # paths and default values
        assert text not in index.read_text(), text
    assert all(str(tmp_path) not in path.read_text() for path in out.glob("*.json"))
    (run,) = (out / "dora" / "xps").iterdir()
    history = (run / "history.json").read_text()
    assert len(json.loads(history)) == 2 and (out / "release" / "state_dict.bin").is_file()
    clip = next(out.glob("1-*.wav"))
    audio = clip.read_bytes()
    clip.unlink()
    demo.run_demo(out, MODEL, overrides)
    assert (run / "history.json").read_text() == history                # the finished run is not repeated
    assert any((out / "tokens").iterdir())
    assert clip.read_bytes() == audio and len(list(out.glob("*.wav"))) == len(demo.PROMPTS)
