"""From requests to the files of clips, with a model of random weights."""
import functools
import gc
import json
import threading
import typing as tp
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch

from magnet_plugin.app import clip_settings
from magnet_plugin.app.web import edit_tab, generate_tab, making, views
from magnet_plugin.app.web.jobs import Cancelled, Job
from magnet_plugin.app.web.limits import Limits
from magnet_plugin.app.web.masks import StepRecorder, picture, runs_of
from magnet_plugin.app.web.studio import Studio
from magnet_plugin.app.web.visitors import Visitor

from ..helpers.toy_magnets import toy_magnet

GENERATE: dict[str, tp.Any] = {"text": "a reel", "negative": "", "count": 1, "duration": 1.0, "seed": 5, "preset": "draft",
                               "loaded": None, "temperature": None, "guidance": None, "top_p": None}
EDIT: dict[str, tp.Any] = {"method": "inpaint", "regions": "0.2-0.6", "before": 0, "after": 0, "variation": "strength",
                           "strength": 0.5, "seam": 0.5, "text": "", "count": 2, "negative": "", "preset": "draft",
                           "loaded": None, "temperature": None, "guidance": None, "top_p": None}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> tp.Iterator[Studio]:
    made = Studio(toy_magnet(), Limits(max_seconds=5, max_waiting=1), tmp_path_factory.mktemp("app") / "files")
    yield made
    made.close()
    assert not made.folder.exists()


@pytest.fixture
def visitor(studio: Studio) -> tp.Iterator[Visitor]:
    made = studio.visitors.open()
    yield made
    studio.visitors.close(made)


def finish(studio: Studio, job: Job) -> None:
    for _ in studio.queue.watch(job):
        pass


def generate(studio: Studio, visitor: Visitor, **changes: tp.Any) -> None:
    finish(studio, generate_tab.start(studio, visitor, **{**GENERATE, **changes}))


def test_clips_have_their_files_and_the_settings_that_make_them_again(studio: Studio, visitor: Visitor) -> None:
    generate(studio, visitor, text="a reel\nan air", count=2, temperature=2.0)
    assert [(take.title, take.seed) for take in visitor.takes] == [
        ("a reel", 5), ("a reel", 6), ("an air", 7), ("an air", 8)]
    shown = views.shelf(visitor)
    assert shown["pending"] is None
    assert [take["title"] for take in shown["takes"]] == ["an air", "an air", "a reel", "a reel"]
    for take in shown["takes"]:
        for kind in ("audio", "settings", "spectrogram", "steps"):
            assert studio.visitors.file(*take[kind].removeprefix(f"{views.CLIPS}/").split("/")) is not None, kind
    path = visitor.folder / visitor.takes[1].audio
    metadata = clip_settings.read_metadata(path)
    _, loaded = generate_tab.load_settings(path, studio.limits)
    before, rate = soundfile.read(path)
    assert rate == studio.model.sample_rate and len(before) == rate
    generate(studio, visitor, text=metadata["text"], seed=metadata["seed"], preset="file", loaded=loaded)
    again = clip_settings.read_metadata(visitor.folder / visitor.takes[-1].audio)
    assert again["tokens"] == metadata["tokens"] and again["settings"] == metadata["settings"]
    np.testing.assert_array_equal(soundfile.read(visitor.folder / visitor.takes[-1].audio)[0], before)


def test_every_step_is_recorded(studio: Studio, visitor: Visitor) -> None:
    generate(studio, visitor)
    steps = json.loads((visitor.folder / visitor.takes[0].files["steps"]).read_text())
    counts = studio.model.preset_arguments("draft")["decoding_steps"]
    assert [(step["codebook"], step["step"], step["of"]) for step in steps["steps"]] == [
        (codebook, step, count) for codebook, count in enumerate(counts) for step in range(count)]
    assert steps["frames"] == 50 and steps["codebooks"] == 4 and steps["known"] == [[]] * 4
    assert all(step["masked"] == [[0, 50]] for step in steps["steps"] if step["step"] == 0)


def test_long_clips_appear_window_by_window(studio: Studio, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    from magnet_plugin.models import codec_chunks
    monkeypatch.setattr(codec_chunks, "PIECE", 1.0)
    monkeypatch.setattr(codec_chunks, "MARGIN", 0.1)
    found: list[tuple[float, float]] = []

    class Watched(Job):
        def __setattr__(self, name: str, value: tp.Any) -> None:
            if name == "part" and "audio" in value:
                info = soundfile.info(visitor.folder / value["audio"])
                found.append((value["seconds"], info.duration))
            super().__setattr__(name, value)

    order = generate_tab.Order.read("a reel", "", 1, 1, generate_tab.Decoding.read("draft", None), studio.limits)
    job = Watched(functools.partial(making.generate, studio.model, order, 4.0, visitor))
    job.run()
    assert job.error is None and len({seconds for seconds, _ in found}) >= 2
    assert all(seconds == pytest.approx(duration) for seconds, duration in found) and found == sorted(found)
    assert not list(visitor.folder.glob("*.part*")) and visitor.takes[0].seconds == 4.0


def test_edits_keep_what_is_not_marked(studio: Studio, visitor: Visitor, tmp_path: Path) -> None:
    wav = np.random.default_rng(0).normal(size=(1000, 1)) * 0.1
    soundfile.write(tmp_path / "mine.wav", wav, 1000)
    with pytest.raises(ValueError, match="nothing to edit yet"):
        edit_tab.start(studio, visitor, EDIT, 3)
    assert edit_tab.editor_view(visitor, "inpaint")["url"] is None
    edit_tab.open_upload(studio, visitor, str(tmp_path / "mine.wav"))
    assert edit_tab.editor_view(visitor, "loop") == {
        "single": True, "hint": edit_tab.METHODS["loop"][1], "name": "mine.wav", "seconds": 1.0,
        "url": tp.cast(tp.Any, visitor.source).url}
    mask = edit_tab.show_mask(studio, visitor, EDIT)
    assert mask["known"] == [[[0, 10], [30, 50]]] * 4
    finish(studio, edit_tab.start(studio, visitor, EDIT, 3))
    assert [take.seed for take in visitor.takes] == [3, 4]
    metadata = clip_settings.read_metadata(visitor.folder / visitor.takes[0].audio)
    assert [metadata[name] for name in ("command", "source", "arguments")] == [
        "inpaint", "mine.wav", {"spans": [[0.2, 0.6]]}]
    edited, given = (soundfile.read(path)[0] for path in (visitor.folder / visitor.takes[0].audio, tmp_path / "mine.wav"))
    np.testing.assert_allclose(np.delete(edited, slice(200, 600)), np.delete(given, slice(200, 600)), atol=1e-4)
    assert np.abs(edited[250:550] - given[250:550]).max() > 1e-3
    steps = json.loads((visitor.folder / visitor.takes[0].files["steps"]).read_text())
    assert steps["known"] == mask["known"]
    edit_tab.open_take(studio, visitor, visitor.takes[1].id)
    assert tp.cast(tp.Any, visitor.source).name == visitor.takes[1].audio
    with pytest.raises(ValueError, match="does not exist any more"):
        edit_tab.open_take(studio, visitor, "../../x")


def test_a_cancelled_request_keeps_finished_clips(studio: Studio, visitor: Visitor) -> None:
    job = generate_tab.start(studio, visitor, **{**GENERATE, "count": 4, "duration": 5.0, "preset": "paper"})
    with pytest.raises(ValueError, match="your last request is still running"):
        generate_tab.start(studio, visitor, **GENERATE)
    with pytest.raises(Cancelled):
        for _ in studio.queue.watch(job):
            if len(visitor.takes) == 1:
                job.cancel()
    assert 1 <= len(visitor.takes) < 4
    generate(studio, visitor)
    assert visitor.takes[-1].seed == 5


def test_settings_are_read_from_clips_only(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "empty.json").touch()
    for name, said in (("deep.json", "holds no settings of a clip"), ("other.json", "holds no settings of a clip"),
                       ("empty.json", "is empty")):
        with pytest.raises(ValueError, match=said) as caught:
            generate_tab.load_settings(tmp_path / name, studio.limits)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(ValueError, match="no file was chosen"):
        generate_tab.load_settings(None, studio.limits)


def test_runs_and_pictures_of_masks() -> None:
    assert runs_of(torch.zeros(3, dtype=torch.bool)) == [] and runs_of(torch.ones(3, dtype=torch.bool)) == [[0, 3]]
    known = torch.tensor([[True, False, True, True], [False, False, False, True]])
    assert picture(known, 50)["known"] == [[[0, 1], [2, 4]], [[3, 4]]]
    assert StepRecorder().steps == []


def test_messages_are_escaped_and_faults_are_not_bare_errors(caplog: pytest.LogCaptureFixture) -> None:
    assert "<script>" not in views.failure(ValueError("<script>alert(1)</script>"))
    assert 'role="alert"' in views.failure(ValueError("x")) and not caplog.records
    assert "KeyError" in views.failure(KeyError("gone")) and "fault in the program" in views.failure(KeyError("gone"))
    assert caplog.records and "Cancelled" in views.failure(Cancelled())
    done = threading.Event()
    job = Job(lambda job: done.set())
    assert "Waiting: 2 requests of others" in views.waiting(2, job) and "Starting" in views.waiting(0, job)


@pytest.mark.integ
def test_memory_and_files_stay_within_bounds_over_500_requests(studio: Studio, visitor: Visitor) -> None:
    process, sizes = psutil.Process(), list[float]()
    for number in range(500):
        generate(studio, visitor, seed=number, text=f"a reel {number}")
        if number in (99, 299, 499):
            gc.collect()
            sizes.append(process.memory_info().rss / 1e6)
    assert len(visitor.takes) == studio.limits.max_kept
    assert len(list(visitor.folder.iterdir())) == 4 * studio.limits.max_kept
    print(f"resident memory after 100, 300 and 500 requests: {[round(size) for size in sizes]} MB")
    assert sizes[2] - sizes[0] < 40
