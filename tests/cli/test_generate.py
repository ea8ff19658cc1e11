"""`magnet generate`: its options and prompts."""
import copy
import json
import subprocess
import sys
import typing as tp
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from magnet_plugin.cli import main, model_options, recordings

RATE = 8000


def test_steps():
    assert model_options.steps("20,10, 5") == [20, 10, 5]
    with pytest.raises(SystemExit) as done:
        main.main(["generate", "x", "--decoding-steps", "20;10"])
    assert done.value.code == 2


def wav_file(path: Path, seconds: float, rate: int = 8000, channels: int = 2) -> Path:
    ramp = np.linspace(0, 0.5, round(seconds * rate))
    soundfile.write(path, np.stack([ramp] * channels, axis=1), rate)
    return path


def test_prompt_that_is_no_audio(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match="cannot read this file as audio"):
        recordings.read("--continue-from", tmp_path / "text.wav")


@pytest.mark.parametrize("args, message", [
    (["--top-p", "2"], "top_p=2.0 is outside"), (["--duration", "-1"], "--duration -1 must be above 0"),
    (["--device", "cuda:x"], "--device cuda:x: this is not a supported device"),
    (["--continue-from", "none.wav"], "no such file"), (["--model", "/none/here"], "no such file or folder"),
    (["--prompt-seconds", "0", "--continue-from", __file__], "--prompt-seconds 0 must be above 0")])
def test_invalid_options_are_reported_without_importing_torch(args, message):
    code = ("import sys\nfrom magnet_plugin.cli import main\nassert main.main(sys.argv[1:]) == 2\n"
            "assert not {'torch', 'audiocraft', 'numpy'} & sys.modules.keys()")
    done = subprocess.run([sys.executable, "-c", code, "generate", "x", *args], capture_output=True, text=True)
    assert done.returncode == 0 and message in done.stderr, done.stderr


class FakeModel:
    """Records what was asked of it; the tokens are the seed."""
    name, duration, sample_rate, progress_label = "fake", 5.0, RATE, "MAGNeT"

    def __init__(self) -> None:
        self.calls: list[dict[str, tp.Any]] = []
        self.params: dict[str, tp.Any] = {}

    def with_generation_params(self, **params: tp.Any) -> "FakeModel":
        own = copy.copy(self)
        own.params, own.duration = params, params.get("duration", self.duration)
        return own

    def generate(self, texts: list[str | None], **arguments: tp.Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls.append({"text": texts[0], **self.params, **arguments, "label": self.progress_label})
        return torch.full((1, 1, 800), 0.5), torch.full((1, 4, 5), arguments["seed"])

    def generate_unconditional(self, count: int, **arguments: tp.Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.generate([None] * count, **arguments)

    def generate_continuation(self, prompt: torch.Tensor, rate: int, texts: list[str | None], **arguments: tp.Any
                              ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.generate(texts, prompt=tuple(prompt.shape), rate=rate, **arguments)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    from magnet_plugin.models import settings
    fake = FakeModel()
    monkeypatch.setattr(model_options, "load", lambda args: fake)
    monkeypatch.setattr(settings, "settings", lambda model: {"model": "fake", "temp": 2.0, "duration": model.duration})
    return fake


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tp.Callable[..., list[str]]:
    def run(*args: str, code: int = 0) -> list[str]:
        """Return the lines on stdout; the files are in the folder `out`."""
        assert main.main(["generate", "--out", str(tmp_path / "out"), *args]) == code
        captured = capsys.readouterr()
        run.err = captured.err.splitlines()                     # type: ignore[attr-defined]
        return captured.out.splitlines()
    return run


def seeds(model: FakeModel) -> list[tuple[str | None, int]]:
    return [(call["text"], call["seed"]) for call in model.calls]


def test_texts_in_a_table_have_settings_of_their_own(model, run, tmp_path):
    (tmp_path / "t.csv").write_text("text,seed,duration,negative,top_p\na reel,,,,\na waltz,7,2,an organ,0.5\n")
    lines = run("--texts", str(tmp_path / "t.csv"), "--seed", "3", "--negative", "noise", "--temperature", "2", "--n", "2")
    assert seeds(model) == [("a reel", 3), ("a reel", 4), ("a waltz", 7), ("a waltz", 8)]
    assert "top_p" not in model.calls[1] and model.calls[1]["negative_descriptions"] == "noise"
    last = model.calls[3]
    assert (last["top_p"], last["temperature"], last["duration"]) == (0.5, 2.0, 2.0)
    assert (last["negative_descriptions"], last["label"]) == ("an organ", "4/4 a waltz")
    assert [Path(line).name for line in lines] == [f"{name}-00{i}.wav" for name in ("a-reel", "a-waltz") for i in (1, 2)]
    assert run.err == ["1/4 a reel (seed 3)", "2/4 a reel (seed 4)", "3/4 a waltz (seed 7)", "4/4 a waltz (seed 8)"]


def test_each_line_of_standard_input_is_generated_before_the_next_is_read(model, run, monkeypatch):
    def lines() -> tp.Iterator[str]:
        yield "a reel\n"
        assert seeds(model) == [("a reel", 1)]
        yield from ("\n", " a waltz \n")
    monkeypatch.setattr(sys, "stdin", lines())
    assert len(run("-", "--seed", "1")) == 2 and seeds(model) == [("a reel", 1), ("a waltz", 2)]
    assert run.err[-1] == "2 a waltz (seed 2)"


def test_one_line_of_json_per_clip(model, run):
    printed = run("a reel", "a waltz", "--json", "--seed", "1", "--format", "ogg", "--spectrogram")
    lines = [json.loads(line) for line in printed]
    assert [(line["text"], line["seed"]) for line in lines] == [("a reel", 1), ("a waltz", 2)]
    assert Path(lines[1]["file"]).suffix == ".ogg" and Path(lines[1]["spectrogram"]).stat().st_size > 1000
    assert lines[0]["settings"]["temp"] == 2.0 and lines[0]["gain"] == 1.0


def test_a_clip_is_made_again_from_its_file(model, run, tmp_path):
    (first,) = run("a reel", "--seed", "3", "--negative", "noise", "--format", "mp3")
    for file in (first, str(Path(first).with_suffix(".json"))):
        run("--settings", file)
        assert model.calls[-1] == model.calls[0]
    run("--settings", first, "a waltz", "--seed", "5")
    assert seeds(model)[-1] == ("a waltz", 5)
    (alone,) = run("--unconditional", "1", "--seed", "4")
    run("--settings", alone)
    assert seeds(model)[-1] == (None, 4)
    (more,) = run("--continue-from", str(wav_file(tmp_path / "p.wav", 2.0)), "--prompt-seconds", "0.75", "--seed", "6")
    run("--settings", more)
    assert model.calls[-1] == model.calls[-2] and model.calls[-1]["prompt"] == (2, 6000)


def test_tempo_and_key_are_added_to_texts_and_kept_with_the_clip(model, run, tmp_path):
    (tmp_path / "t.csv").write_text("text,bpm,key\na reel,,\na waltz,90,D major\n")
    first, _ = run("--texts", str(tmp_path / "t.csv"), "--seed", "1", "--bpm", "120", "--key", "F# minor")
    assert seeds(model) == [("a reel in F sharp minor at 120 bpm", 1), ("a waltz in D major at 90 bpm", 2)]
    run("--settings", first, "--bpm", "140")
    assert seeds(model)[-1] == ("a reel in F sharp minor at 140 bpm", 1)
    assert Path(first).name == "a-reel-001.wav"


def test_texts_that_set_in_later(model, run, tmp_path):
    (first,) = run("a reel", "--at", "6", "a waltz", "--at", "9.5", "an air", "--seed", "1")
    assert model.calls[-1]["timed_descriptions"] == [(6.0, "a waltz"), (9.5, "an air")]
    run("--settings", first)
    assert model.calls[-1] == model.calls[0]
    run("--continue-from", str(wav_file(tmp_path / "p.wav", 2.0)), "--at", "3", "a waltz")
    assert model.calls[-1]["timed_descriptions"] == [(3.0, "a waltz")]


@pytest.mark.parametrize("args, said", [
    (["x", "--bpm", "900"], "bpm=900.0 must be"), (["x", "--key", "H major"], "key='H major' must be"),
    (["--unconditional", "1", "--bpm", "90", "--key", "D major"], "--bpm and --key: needs a text to be added to"),
    (["x", "--at", "soon", "y"], "--at soon y: give seconds"), (["x", "--at", "-1", "y"], "--at -1 y: give seconds"),
    (["x", "--at", "nan", "y"], "--at nan y: give seconds"),
    (["--unconditional", "1", "--at", "2", "y"], "--at needs a text to be added to")])
def test_invalid_tempos_keys_and_times(args, said, model, run):
    assert run(*args, code=2) == [] and said in run.err[-1] and not model.calls


def test_an_interrupt_leaves_the_finished_clips_and_nothing_else(model, run, monkeypatch, tmp_path):
    from magnet_plugin.app import clips
    save, finished = clips.save_clip, []

    def save_clip(path: Path, *args: tp.Any, **form: tp.Any) -> float:
        if finished:
            path.touch()                                        # The audio is written, and its settings are not.
            raise KeyboardInterrupt
        finished.append(path)
        return save(path, *args, **form)
    monkeypatch.setattr(clips, "save_clip", save_clip)
    run("a reel", "a waltz", "a jig", code=130)
    assert run.err[-1] == "magnet: interrupted; 1 of 3 clips are finished"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-reel-001.json", "a-reel-001.wav"]


def test_prompt_that_leaves_nothing_to_generate(model, run, tmp_path):
    path, long = str(wav_file(tmp_path / "prompt.wav", 2.0)), str(wav_file(tmp_path / "long.wav", 6.0))
    (tmp_path / "t.csv").write_text("text,duration\na reel,3\na waltz,2\n")
    for args, said in ((["--continue-from", path, "--duration", "1.5"], "lasts 2.00 s and the clip 1.5 s"),
                       (["--continue-from", path, "--texts", str(tmp_path / "t.csv")], "lasts 2.00 s and the clip 2 s"),
                       (["--continue-from", long], "lasts 6.00 s and the clip 5 s")):          # only the model knows that
        run(*args, code=2)
        assert said in run.err[-1]
    assert not model.calls


class NoMemory:
    """A model that is too large for its device."""
    duration, sample_rate, progress_label = 30.0, 16_000, ""

    def generate(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB")


def test_too_little_memory_is_one_line_with_the_size_and_a_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(model_options, "load", lambda args: NoMemory())
    assert main.main(["generate", "x", "--seed", "1", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == ("magnet: error: not enough memory on the device for a clip of 30 s, batch size 1 (CUDA out of memory. "
                     "Tried to allocate 2.00 GiB); give a shorter --duration or --device cpu, or free memory that other "
                     "processes use")
    with pytest.raises(ValueError, match="not enough memory"):
        main.main(["generate", "x", "--seed", "1", "--debug", "--out", str(tmp_path)])


def test_too_little_memory_in_any_command_is_one_line(monkeypatch, capsys):
    def fail(args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB")

    monkeypatch.setattr(model_options, "load", fail)
    assert main.main(["generate", "x"]) == 2
    error = capsys.readouterr().err
    assert "for magnet generate (CUDA out of memory. Tried to allocate 2.00 GiB); free its memory" in error
    assert error.count("\n") == 1


@pytest.mark.integ
def test_text_seed_and_settings_determine_the_audio(tmp_path, run, capsys):
    short = ["--decoding-steps", "3,1,1,1", "--duration", "1.5"]
    options = [*short, "--span-arrangement", "nonoverlap", "--top-p", "0.7"]
    one, two = map(Path, run("a reel", "a reel", "--seed", "5", *options))
    assert one != two and one.read_bytes() != two.read_bytes()
    metadata = json.loads(two.with_suffix(".json").read_text())
    assert metadata["text"] == "a reel" and metadata["seed"] == 6 and metadata["took_seconds"] > 0
    expected = {"decoding_steps": [3, 1, 1, 1], "top_p": 0.7, "span_arrangement": "nonoverlap", "duration": 1.5}
    assert {name: metadata["settings"][name] for name in expected} == expected
    assert soundfile.info(two).frames == 24000
    for args in (["a reel", "--seed", "6", *options], ["--settings", str(two)]):
        (again,) = map(Path, run(*args))
        assert again not in (one, two) and again.read_bytes() == two.read_bytes()
    (other,) = run("--settings", str(two), "--preset", "draft", "--json")
    assert json.loads(other)["settings"]["decoding_steps"] == [5, 2, 2, 2]
    assert json.loads(other)["settings"]["duration"] == 1.5 and json.loads(other)["tokens"] != metadata["tokens"]
    (more,) = map(Path, run("--continue-from", str(two), "--prompt-seconds", "0.5", "--greedy", "--format", "mp3", *short))
    assert json.loads(more.with_suffix(".json").read_text())["continued_from"]["seconds"] == 0.5
    (same,) = run("--settings", str(more), "--json")
    assert json.loads(same)["tokens"] == json.loads(more.with_suffix(".json").read_text())["tokens"]
    assert json.loads(same)["settings"]["use_sampling"] is False
    assert len(run("--unconditional", "2", *short)) == 2
