"""`magnet generate`: its options and prompts."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from magnet_plugin.cli import generate, main, model_options


def test_steps():
    assert model_options.steps("20,10, 5") == [20, 10, 5]
    with pytest.raises(SystemExit) as done:
        main.main(["generate", "x", "--decoding-steps", "20;10"])
    assert done.value.code == 2


def wav_file(path: Path, seconds: float, rate: int = 8000, channels: int = 2) -> Path:
    ramp = np.linspace(0, 0.5, round(seconds * rate))
    soundfile.write(path, np.stack([ramp] * channels, axis=1), rate)
    return path


def test_prompt_is_read_with_its_rate_and_cut(tmp_path):
    path = wav_file(tmp_path / "prompt.wav", 2.0)
    whole = generate.read_prompt(path, None, 5.0)
    assert (whole.audio.shape, whole.sample_rate, whole.seconds) == ((2, 16000), 8000, 2.0)
    cut = generate.read_prompt(path, 0.5, 5.0)
    assert cut.audio.shape[-1] == 4000 and (cut.audio == whole.audio[:, :4000]).all()


def test_prompt_that_leaves_nothing_to_generate(tmp_path):
    path = wav_file(tmp_path / "prompt.wav", 2.0)
    with pytest.raises(ValueError, match="lasts 2.00 s and the clip 2 s"):
        generate.read_prompt(path, None, 2.0)
    with pytest.raises(ValueError, match="lasts 2.00 s and the clip 1.5 s"):        # only the model knows its default length
        generate.check_prompt(generate.read_prompt(path, None, None), 1.5)


def test_prompt_that_is_no_audio(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match="cannot read this file as audio"):
        generate.read_prompt(tmp_path / "text.wav", None, 5.0)


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


class NoMemory:
    """A model that is too large for its device."""
    duration, sample_rate = 30.0, 16_000

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
def test_text_seed_and_settings_determine_the_audio(tmp_path, capsys):
    def run(*args: str) -> list[Path]:
        short = ["--decoding-steps", "3,1,1,1", "--duration", "1.5"]
        assert main.main(["generate", *short, "--out", str(tmp_path), *args]) == 0
        return [Path(line) for line in capsys.readouterr().out.splitlines()]
    options = ["--span-arrangement", "nonoverlap", "--top-p", "0.7"]
    one, two = run("a reel", "a reel", "--seed", "5", *options)
    assert one != two and one.read_bytes() != two.read_bytes()
    metadata = json.loads(two.with_suffix(".json").read_text())
    assert metadata["text"] == "a reel" and metadata["seed"] == 6 and metadata["took_seconds"] > 0
    expected = {"decoding_steps": [3, 1, 1, 1], "top_p": 0.7, "span_arrangement": "nonoverlap", "duration": 1.5}
    assert {name: metadata["settings"][name] for name in expected} == expected
    assert soundfile.info(two).frames == 24000
    (again,) = run("a reel", "--seed", "6", *options)
    assert again not in (one, two) and again.read_bytes() == two.read_bytes()
    (more,) = run("--continue-from", str(two), "--prompt-seconds", "0.5", "--greedy")
    assert json.loads(more.with_suffix(".json").read_text())["continued_from"]["seconds"] == 0.5
    assert len(run("--unconditional", "2")) == 2
