"""`magnet doctor`: findings, remedies and failing checks."""
import io
import subprocess
import sys

import pytest

from magnet_plugin.cli import doctor
from magnet_plugin.cli.doctor import Finding, examine


def run(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "magnet_plugin", *args], capture_output=True, text=True, timeout=280)


def test_doctor_prints_state_and_remedy_and_survives_a_broken_check():
    def passing():
        yield Finding("ok", "one", "1.0")
        yield Finding("note", "two", "odd", "repair it")

    def broken():
        yield Finding("ok", "three", "3.0")
        raise RuntimeError("cannot") from OSError("libfoo.so: not there")
    out = io.StringIO()
    assert examine({"A": passing}, out) == 0                                # a note is no problem
    assert examine({"A": passing, "B": broken, "C": passing}, out) == 1
    text = out.getvalue()
    assert "-> repair it" in text and "three" in text and text.count("two") == 3
    assert "problem  broken" in text and "RuntimeError: cannot; caused by OSError: libfoo.so: not there" in text
    assert "Problems: 1, notes: 2, ok: 3" in text


def test_doctor_versions(monkeypatch):
    import torch

    import magnet_plugin
    found = {finding.name: finding for finding in doctor.versions()}
    assert found["torch"].text == torch.__version__.partition("+")[0] and found["python"].state == "ok"
    assert found["magnet_plugin"].text.startswith(magnet_plugin.__version__)
    monkeypatch.setattr(doctor, "NEEDED", {"thing": "no-such-distribution"})
    assert Finding("problem", "thing", "not installed", "pip install no-such-distribution") in list(doctor.versions())


def test_doctor_runs_the_kernels_of_the_cpu_and_sees_a_wrong_one(monkeypatch):
    from magnet_plugin.modules import attention_kernels, attention_probe
    attention_probe._run.cache_clear()
    found = {finding.name: finding for finding in doctor.attention()}
    assert found["kernels of auto"].text.split() == ["full", "context", "band", "of", "5", "frames"]
    for dtype in ("float32", "float16", "bfloat16"):
        assert found[f"cpu {dtype}"].state == "ok"
        assert found[f"cpu {dtype}"].text.split() == ["torch-full", "torch-blocked"]
    monkeypatch.setitem(attention_kernels.KERNELS, "torch-blocked", attention_kernels._torch_full)     # drops the band
    attention_probe._run.cache_clear()
    wrong = {finding.name: finding for finding in doctor.attention()}["cpu bfloat16"]
    attention_probe._run.cache_clear()
    assert wrong.state == "problem" and "torch-blocked: its output differs from that of a dense mask" in wrong.text
    assert wrong.remedy


@pytest.mark.parametrize("gpu, refused, full, band, state", [
    ("H100", (), "xformers-full", "xformers-local", "ok"),
    ("H100 without xformers", ("xformers-full", "xformers-local"), "torch-full", "torch-local", "ok"),
    ("V100", ("xformers-local", "torch-local"), "xformers-full", "torch-blocked", "note")])
def test_doctor_prints_a_table_of_kernels_for_a_gpu(gpu, refused, full, band, state, monkeypatch):
    """The GPU is simulated by what it refuses."""
    import torch

    from magnet_plugin.modules import attention, attention_probe
    mismatch = ("xformers 1 does not fit torch 2", "install xformers 2") if "without" in gpu else None

    def reason(kernel, *args):
        return f"no {kernel} here" if kernel in refused else None
    for module in (attention, attention_probe):
        monkeypatch.setattr(module, "unsupported_reason", reason)
        monkeypatch.setattr(module, "xformers_mismatch", lambda: mismatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    found = {finding.name: finding for finding in doctor.attention()}
    assert found["cuda:0 float32"].text.split() == ["torch-full", "torch-blocked"]
    assert found["cuda:0 float32"].state == "ok"
    for dtype in ("float16", "bfloat16"):
        row = found[f"cuda:0 {dtype}"]
        assert (row.state, row.text.split()) == (state, [full, band])
        assert [f"{kernel}: no {kernel} here" in row.remedy for kernel in ("xformers-local", "torch-local")
                ] == [state == "note"] * 2
    assert ("xformers kernels" in found) == (mismatch is not None)
    if mismatch:
        line = found["xformers kernels"]
        assert line.state == "note" and line.remedy == "install xformers 2"
        assert line.text.startswith("xformers 1 does not fit torch 2. PyTorch's kernels are used instead: torch-full")


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
    assert slurm.state == "note" and "srun and sbatch not on PATH" in slurm.text


@pytest.mark.integ
def test_doctor_as_a_command():
    done = run("doctor")
    assert done.returncode == int("\n  problem " in done.stdout), done.stdout + done.stderr
    for name in ("python", "torch", "xformers", "audiocraft", "dora", "flashy", "ffmpeg", "SLURM", "Dora folder",
                 "cpu bfloat16"):
        assert f" {name} " in done.stdout, name
    assert "ok       import audiocraft" in done.stdout and "Traceback" not in done.stdout + done.stderr
