"""The demo's page and the pieces that lead to it."""
import html.parser
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from magnet_plugin.app import demo, page
from magnet_plugin.cli import main as cli

EVIL = '<script>alert("x")</script> & \'co\''


class Reader(html.parser.HTMLParser):
    """Collects tags, links and text as a browser would see them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def links(self) -> list[str]:
        return [attrs[name] for _, attrs in self.tags for name in ("src", "href") if attrs.get(name)]


def file_of(page_path: Path, link: str) -> Path:
    """What a browser opens: `?` and `#` end a path."""
    return page_path.parent / unquote(urlsplit(link).path)


@pytest.fixture
def made(tmp_path):
    """A page with two clips, one of them with a hostile text."""
    clips = []
    for number, text in enumerate(["a slow air", EVIL]):
        wav = 0.1 * np.sin(np.arange(8000) / (number + 2))[None]
        path = tmp_path / f"{number} #50%? {page.slug(text)}.wav"
        page.save_clip(path, wav, 16000, {"text": text})
        page.draw_spectrogram(path.with_suffix(".png"), wav, 16000)
        clips.append(page.Clip(text, 7 + number, path.name, path.with_suffix(".png").name, 0.5, 0.25))
    tables = [page.Table("Settings", [("top_p", 0.9), ("decoding_steps", [20, 10])]),
              page.Table("Loss", [(1, EVIL, "2.5")], ("epoch", "training", "validation"), note="nats")]
    return page.write_page(tmp_path / "index.html", EVIL, [EVIL], clips, tables)


def test_page_escapes_and_shows_everything(made):
    source = made.read_text()
    reader = Reader(source)
    assert not any(tag == "script" for tag, _ in reader.tags) and "$" not in reader.text
    for word in (EVIL, "a slow air", "seed 7", "seed 8", "0.5 s of audio in 0.2 s", "top_p", "0.9", "decoding_steps",
                 "[20, 10]", "epoch", "validation", "2.5", "nats"):
        assert word in reader.text, word
    assert reader.text.count(EVIL) == 5 and len(source) < 20_000         # title, heading, intro, clip, cell


def test_page_needs_only_the_files_beside_it(made):
    links = Reader(made.read_text()).links()
    assert len(links) == 2 * 4                                           # picture, player, WAV, settings of each clip
    for link in links:
        assert not link.startswith(("http", "//", "/", "data:"))
        assert file_of(made, link).is_file(), link
    assert "url(" not in made.read_text() and "@import" not in made.read_text()


def test_page_can_be_read_by_all(made):
    tags = Reader(made.read_text()).tags
    pictures = [attrs for tag, attrs in tags if tag == "img"]
    assert [attrs["alt"] for attrs in pictures] == [f'Spectrogram of "{text}"' for text in ("a slow air", EVIL)]
    assert [attrs["aria-label"] for tag, attrs in tags if tag == "audio"] == ["a slow air", EVIL]
    assert ("html", {"lang": "en"}) in tags and "prefers-color-scheme: dark" in made.read_text()
    assert any(attrs.get("name") == "viewport" for tag, attrs in tags if tag == "meta")


@pytest.mark.parametrize("rate, freq", [(16000, 100.0), (16000, 440.0), (32000, 5000.0), (16000, 7500.0)])
def test_tone_is_brightest_at_its_frequency(rate, freq):
    tone = np.sin(2 * np.pi * freq * np.arange(rate) / rate)
    picture, edges = page.spectrogram(np.stack([tone, tone]), rate)
    row = int(picture[:, picture.shape[1] // 2].argmax())
    assert edges[row] - 8 < freq < edges[row + 1] + 8                    # 8 Hz: the window's resolution on a row's edge
    assert picture.max() == 0 and picture.min() >= -page.FLOOR


def test_click_is_equally_bright_at_all_frequencies():
    click = np.zeros(16000)
    click[8000] = 1.0
    picture, _ = page.spectrogram(click, 16000)
    bright = picture[:, picture.sum(axis=0).argmax()]
    assert bright.max() - bright.min() < 0.1                             # dB: no row, narrow or wide, loses or gains


def test_spectrogram_keeps_time():
    burst = np.zeros(32000)
    burst[24000:24100] = 1.0                                             # at 1.5 s of 2 s
    picture, _ = page.spectrogram(burst, 16000)
    peak = picture.sum(axis=0).argmax() / (picture.shape[1] - 1) * 2.0
    assert peak == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("length", [1, 100, 1536, 80000])
def test_spectrogram_of_any_length_and_silence(length, tmp_path):
    assert np.isfinite(page.spectrogram(np.zeros((1, length)), 16000)[0]).all()
    page.draw_spectrogram(tmp_path / "x.png", np.zeros((1, length)), 16000)
    header = (tmp_path / "x.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    size = (int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big"))
    assert size == (1080, 420)                                           # as the page says


def test_missing_matplotlib_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match="pip install matplotlib"):
        demo.check(tmp_path, "any")


def test_demo_fails_before_the_work(tmp_path):
    with pytest.raises(ValueError, match="no such bundled model"):
        demo.run_demo(tmp_path / "out", "//bundled/none-of-this-name")
    with pytest.raises(ValueError, match="nothing is there"):
        demo.run_demo(tmp_path / "out", str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        demo.run_demo(tmp_path / "file", "facebook/any")
    assert not (tmp_path / "out").exists()


def test_training_settings_are_read_back_literally(tmp_path, monkeypatch):
    from hydra.core.override_parser.overrides_parser import OverridesParser
    folder = tmp_path / "it's, a=b (odd) {na}me"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    settings = demo.training_settings(folder, folder.name, ["optim.epochs=1", "model_scale=xsmall"])
    values = {item.key_or_group: item.value() for item in OverridesParser.create().parse_overrides(settings)}
    assert str(values["continue_from"]) == str(folder)                   # absolute: the run changes folders
    assert (str(values["datasource.folk.out"]), str(values["cache.tokens"])) == (f"{folder}/folk", f"{folder}/tokens")
    assert values["datasource.folk.clips"] == demo.CLIPS and values["model_scale"] == "xsmall"
    assert values["optim.epochs"] == 1                                   # what is asked for wins
    bundled = demo.training_settings(folder, "//bundled/magnet-16khz", [])
    assert "continue_from='//bundled/magnet-16khz'" in bundled


def test_failed_run_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match="exit code 1"):
        demo.train(tmp_path, [])


def test_losses_of_each_epoch(tmp_path):
    history = [{"train": {"ce": 3.0, "duration": 5.0}, "valid": {"ce": 2.5, "duration": 1.0}},
               {"train": {"ce": 2.0, "duration": 4.0}, "valid": {"ce": 1.5, "duration": 0.5}, "generate": {}}]
    (tmp_path / "history.json").write_text(json.dumps(history))
    assert demo.losses(tmp_path) == [(1, 3.0, 2.5, 6.0), (2, 2.0, 1.5, 4.5)]


@pytest.fixture(scope="module")
def registered():
    """The plugin in AudioCraft's place for these tests only."""
    from magnet_plugin import register, registry, unregister
    before = bool(registry._undo)
    register()
    yield
    if not before:
        unregister()


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory, registered) -> Path:
    """Release folder of a model trained for seconds."""
    folder = tmp_path_factory.mktemp("stand_in")
    environment = {**demo.os.environ, "AUDIOCRAFT_DORA_DIR": str(folder / "dora"), "USER": "tests"}
    subprocess.run([sys.executable, "-m", "dora", "-P", "magnet_plugin", "run", "solver=magnet/debug"], env=environment,
                   check=True, timeout=280)
    run = next((folder / "dora" / "xps").iterdir())
    assert cli.main(["export", str(run), "--out", str(folder / "release"), "--half"]) == 0
    return folder / "release"


SMALL = ["model_scale=xsmall", "dataset.segment_duration=2", "optim.epochs=2", "optim.updates_per_epoch=2",
         "dataset.batch_size=2", "dataset.valid.num_samples=2", "dataset.evaluate.num_samples=2"]


@pytest.mark.integ
def test_demo_from_a_small_model(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "CLIPS", 24)
    out = tmp_path / "de mo"
    index = demo.run_demo(out, str(stand_in), SMALL)
    reader = Reader(index.read_text())
    for link in reader.links():
        assert file_of(index, link).stat().st_size > 100, link
    for text in (*demo.PROMPTS, "render", "train", "import", "export", "load", "generate",
                 "decoding_steps", "model_scale"):
        assert text in reader.text, text
    (run,) = (out / "dora" / "xps").iterdir()
    written = (run / "history.json").read_text()
    assert len(json.loads(written)) == 2 and (out / "release" / "state_dict.bin").is_file()
    clip = next(out.glob("1-*.wav"))
    first = clip.read_bytes()
    clip.unlink()
    demo.run_demo(out, str(stand_in), SMALL)
    assert (run / "history.json").read_text() == written                 # the finished run is not trained again
    assert any((out / "tokens").iterdir())
    assert clip.read_bytes() == first and len(list(out.glob("*.wav"))) == len(demo.PROMPTS)


@pytest.mark.integ
def test_generate_from_a_small_model(stand_in, tmp_path, capsys):
    def generate(*args: str) -> list[Path]:
        assert cli.main(["generate", "--model", str(stand_in), "--decoding-steps", "3,1,1,1", "--duration", "1.5",
                         "--out", str(tmp_path), *args]) == 0
        return [Path(line) for line in capsys.readouterr().out.splitlines()]
    import soundfile
    one, two = generate("a reel", "a reel", "--seed", "5", "--span-arrangement", "nonoverlap", "--top-p", "0.7")
    assert one != two and one.read_bytes() != two.read_bytes()
    facts = json.loads(two.with_suffix(".json").read_text())
    assert facts["text"] == "a reel" and facts["seed"] == 6 and facts["took_seconds"] > 0
    assert facts["settings"]["decoding_steps"] == [3, 1, 1, 1] and facts["settings"]["top_p"] == 0.7
    assert facts["settings"]["span_arrangement"] == "nonoverlap" and facts["settings"]["duration"] == 1.5
    assert soundfile.info(two).frames == 24000
    (again,) = generate("a reel", "--seed", "6", "--span-arrangement", "nonoverlap", "--top-p", "0.7")
    assert again not in (one, two) and again.read_bytes() == two.read_bytes()    # text, seed and settings decide
    (more,) = generate("--continue-from", str(two), "--prompt-seconds", "0.5", "--greedy")
    assert json.loads(more.with_suffix(".json").read_text())["continued_from"]["seconds"] == 0.5
    assert len(generate("--unconditional", "2")) == 2
