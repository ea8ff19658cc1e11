"""The `magnet` command: what it imports, what it says, what it writes."""
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_plugin.app import page
from magnet_plugin.cli import doctor
from magnet_plugin.cli import main as cli
from magnet_plugin.cli.doctor import Finding, describe, examine


def run(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "magnet_plugin", *args], capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("args", [["--help"], ["generate", "--help"], ["data", "folk", "--help"], ["demo", "--help"],
                                  ["grid-report", "--help"]])
def test_help_imports_nothing_heavy(args):
    code = ("import sys\nfrom magnet_plugin.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as done:\n"
            "    assert done.code == 0\n"
            "heavy = {'torch', 'audiocraft', 'numpy', 'matplotlib', 'omegaconf'} & sys.modules.keys()\n"
            "assert not heavy, heavy")
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: magnet" in done.stdout


def test_every_command_is_listed_and_runs():
    commands = {"generate": ["x"], "export": ["x", "--out", "y"], "doctor": [], "demo": [],
                "data": ["folk", "--out", "x"], "grid-report": ["magnet.ablate_span"]}
    for name, rest in commands.items():
        assert callable(cli.parser().parse_args([name, *rest]).run), name


@pytest.mark.parametrize("args, said", [
    (["generate"], "nothing to generate"),
    (["generate", "x", "--unconditional", "2"], "not both"),
    (["generate", "--unconditional", "0"], "--unconditional 0 must be at least 1"),
    (["generate", "x", "--prompt-seconds", "1"], "needs --continue-from"),
    (["generate", "x", "--device", "toaster"], "not a device that torch knows; caused by RuntimeError: "),
])
def test_error_is_one_line_on_stderr(args, said, capsys):
    assert cli.main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("magnet: error: ") and captured.err.count("\n") == 1 and captured.err.endswith("\n")
    assert said in captured.err


def test_debug_and_unexpected_errors_keep_their_traceback(monkeypatch, capsys):
    with pytest.raises(ValueError, match="nothing to generate"):
        cli.main(["generate", "--debug"])
    with pytest.raises(ValueError, match="nothing to generate"):
        cli.main(["--debug", "generate"])

    def broken(checks=None, out=None):
        raise KeyError("a fault of the program")
    monkeypatch.setattr(doctor, "examine", broken)
    with pytest.raises(KeyError):
        cli.main(["doctor"])
    assert "magnet: error" not in capsys.readouterr().err


def test_describe_shows_every_cause():
    try:
        try:
            dict[str, int]()["key"]
        except KeyError as error:
            raise OSError("two\n  lines") from error
    except OSError as error:
        try:
            raise ValueError("top")
        except ValueError as top:
            assert top.__context__ is error
            assert describe(top) == "top; caused by OSError: two lines; caused by KeyError: 'key'"
    assert describe(ValueError()) == "ValueError"
    twice = ValueError("top")
    twice.__cause__ = OSError("low")
    twice.__cause__.__cause__ = OSError("low")
    assert describe(twice) == "top; caused by OSError: low"
    hidden = ValueError("told")
    hidden.__context__, hidden.__suppress_context__ = KeyError("not told"), True
    assert describe(hidden) == "told"


def test_steps():
    assert cli.steps("20,10, 5") == [20, 10, 5]
    with pytest.raises(SystemExit) as done:
        cli.main(["generate", "x", "--decoding-steps", "20;10"])
    assert done.value.code == 2


def wav_file(path: Path, seconds: float, rate: int = 8000, channels: int = 2) -> Path:
    ramp = np.linspace(0, 0.5, round(seconds * rate))
    soundfile.write(path, np.stack([ramp] * channels, axis=1), rate)
    return path


def test_prompt_is_read_with_its_rate_and_cut(tmp_path):
    path = wav_file(tmp_path / "prompt.wav", 2.0)
    wav, rate = cli.read_prompt(path, None, 5.0)
    assert (list(wav.shape), rate) == ([2, 16000], 8000)
    cut, _ = cli.read_prompt(path, 0.5, 5.0)
    assert cut.shape[-1] == 4000 and (cut == wav[:, :4000]).all()


@pytest.mark.parametrize("seconds, duration, said", [
    (None, 2.0, "lasts 2.00 s"), (0.0, 5.0, "above 0"), (-1, 5.0, "above 0")])
def test_prompt_that_leaves_nothing_to_continue(tmp_path, seconds, duration, said):
    with pytest.raises(ValueError, match=said):
        cli.read_prompt(wav_file(tmp_path / "prompt.wav", 2.0), seconds, duration)


def test_prompt_that_is_no_audio(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match="not audio"):
        cli.read_prompt(tmp_path / "text.wav", None, 5.0)
    with pytest.raises(ValueError, match="no such file"):
        cli.read_prompt(tmp_path / "none.wav", None, 5.0)


def test_equal_texts_get_names_of_their_own(tmp_path):
    texts = ["A reel!", "a reel", "a/reel", "a reel" * 100, "a reel" * 100, "", "///", "ein Lied", "日本の歌",
             "日本の歌" * 40]
    paths = [page.reserve(tmp_path, text) for text in texts + texts]
    assert len(set(paths)) == len(paths) == len(list(tmp_path.iterdir()))
    assert paths[0].name == "a-reel-001.wav" and paths[1].name == "a-reel-002.wav" and "日本の歌" in paths[8].name
    assert all(path.parent == tmp_path and len(path.name.encode()) < 256 for path in paths)


def test_clip_and_settings_are_saved(tmp_path):
    wav = np.stack([np.linspace(-2, 2, 800), np.zeros(800)])
    gain = page.save_clip(tmp_path / "x.wav", wav, 8000, {"text": "ein Stück", "seed": np.int64(3)})
    read, rate = soundfile.read(tmp_path / "x.wav")
    assert rate == 8000 and gain == pytest.approx(page.PEAK / 2)
    np.testing.assert_allclose(read.T, wav * gain, atol=1e-4)           # turned down, not clipped
    assert json.loads((tmp_path / "x.json").read_text()) == {"text": "ein Stück", "seed": 3, "gain": round(gain, 4)}
    assert page.save_clip(tmp_path / "quiet.wav", wav / 4, 8000, {}) == 1.0
    assert page.save_clip(tmp_path / "silent.wav", wav * 0, 8000, {}) == 1.0
    with pytest.raises(TypeError, match="object"):
        page.save_clip(tmp_path / "unfit.wav", wav, 8000, {"model": object()})
    assert not (tmp_path / "unfit.wav").exists()                        # no sound without its settings
    with pytest.raises(ValueError, match="not finite"):
        page.save_clip(tmp_path / "bad.wav", wav * np.nan, 8000, {})


def test_doctor_tells_state_and_remedy_and_survives_a_broken_check():
    def fine():
        yield Finding("ok", "one", "1.0")
        yield Finding("note", "two", "odd", "mend it so")

    def broken():
        yield Finding("ok", "three", "3.0")
        raise RuntimeError("cannot") from OSError("libfoo.so: not there")
    out = io.StringIO()
    assert examine({"A": fine}, out) == 0                                # a note is no problem
    assert examine({"A": fine, "B": broken, "C": fine}, out) == 1
    text = out.getvalue()
    assert "-> mend it so" in text and "three" in text and text.count("two") == 3
    assert "problem  broken" in text and "RuntimeError: cannot; caused by OSError: libfoo.so: not there" in text
    assert "Problems: 1, notes: 2, fine: 3" in text


def test_doctor_versions(monkeypatch):
    import torch

    import magnet_plugin
    found = {finding.name: finding for finding in doctor.versions()}
    assert found["torch"].text == torch.__version__.partition("+")[0] and found["python"].state == "ok"
    assert found["magnet_plugin"].text.startswith(magnet_plugin.__version__)
    monkeypatch.setattr(doctor, "NEEDED", {"thing": "no-such-distribution"})
    assert Finding("problem", "thing", "not installed", "pip install no-such-distribution") in list(doctor.versions())


def test_doctor_runs_the_kernels_and_sees_a_wrong_one(monkeypatch):
    from magnet_plugin.modules import attention_kernels
    found = {finding.name: finding for finding in doctor.attention()}
    for dtype in ("float32", "float16", "bfloat16"):
        assert found[f"cpu {dtype}"][::2] == ("ok", "Full by torch-full, Band(5) by torch-blocked")
    monkeypatch.setitem(attention_kernels.KERNELS, "torch-blocked", attention_kernels._torch_full)     # drops the band
    wrong = {finding.name: finding for finding in doctor.attention()}["cpu bfloat16"]
    assert wrong.state == "problem" and "Band(5) is off by" in wrong.text and wrong.remedy


def test_doctor_models_and_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(doctor.environment, "PACKAGE", tmp_path)
    (tmp_path / "models" / "bundled" / "codec-16khz").mkdir(parents=True)
    (tmp_path / "models" / "bundled" / "codec-16khz" / "state").write_bytes(bytes(1_500_000))
    found = {finding.name: finding for finding in doctor.models()}
    assert found["//bundled/codec-16khz"][::2] == ("ok", "1.5 MB")
    assert found["//bundled/magnet-16khz"].state == "problem" and found["//bundled/magnet-16khz"].remedy
    assert found["T5 text encoder"].state in ("ok", "note")
    (tmp_path / "file").write_text("")
    assert doctor._folder("cache", tmp_path / "new" / "deep", "X").state == "ok"
    assert not (tmp_path / "new").exists()                              # a look leaves nothing behind
    blocked = doctor._folder("cache", tmp_path / "file" / "below", "MAGNET_CACHE")
    assert blocked.state == "problem" and "MAGNET_CACHE" in blocked.remedy
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert doctor._folder("cache", tmp_path, "MAGNET_CACHE").state == "problem"


def test_doctor_ffmpeg_and_slurm(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert [finding.state for finding in doctor.tools()] == ["ok", "ok"]
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    ffmpeg, slurm = doctor.tools()
    assert ffmpeg.state == "problem" and "pip install imageio-ffmpeg" in ffmpeg.remedy
    assert slurm.state == "note" and "no srun and no sbatch" in slurm.text


@pytest.mark.integ
def test_doctor_as_a_command():
    done = run("doctor")
    assert done.returncode == int("\n  problem " in done.stdout), done.stdout + done.stderr
    for name in ("python", "torch", "xformers", "audiocraft", "dora", "flashy", "ffmpeg", "SLURM", "Dora folder",
                 "cpu bfloat16"):
        assert f" {name} " in done.stdout, name
    assert "ok       import audiocraft" in done.stdout and "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("args, message", [
    (["--top-p", "2"], "top_p=2.0 is outside"), (["--duration", "-1"], "--duration -1 must be above 0"),
    (["--continue-from", "none.wav"], "no such file"), (["--model", "/none/here"], "no such file or folder")])
def test_invalid_options_are_reported_without_importing_torch(args, message):
    code = ("import sys\nfrom magnet_plugin.cli import main\nassert main.main(sys.argv[1:]) == 2\n"
            "assert not {'torch', 'audiocraft', 'numpy'} & sys.modules.keys()")
    done = subprocess.run([sys.executable, "-c", code, "generate", "x", *args], capture_output=True, text=True)
    assert done.returncode == 0 and message in done.stderr, done.stderr


def test_deferred_packages_load_on_first_use():
    code = """
import sys
from magnet_plugin import environment, register
environment.defer_imports()
register()
assert not {"xformers", "spacy", "transformers", "librosa", "torchmetrics"} & sys.modules.keys()
from audiocraft.modules import chroma, conditioners
from audiocraft.solvers import builders
standins = [n for n, m in list(sys.modules.items()) for v in list(vars(m).values()) if type(v).__name__ == "_Deferred"]
assert standins and all(name.startswith("audiocraft.") for name in standins), standins
assert conditioners.T5Tokenizer.from_pretrained.__self__.__name__ == "T5Tokenizer"
assert chroma.filters.chroma(sr=16000, n_fft=512).shape == (12, 257)
import audiocraft.metrics, transformers
assert builders.metrics.FrechetAudioDistanceMetric is audiocraft.metrics.FrechetAudioDistanceMetric
assert type(transformers.T5EncoderModel) is type(conditioners.T5EncoderModel._load())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
