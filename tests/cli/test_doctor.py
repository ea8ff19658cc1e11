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
    assert slurm.state == "note" and "srun and sbatch not on PATH" in slurm.text


@pytest.mark.integ
def test_doctor_as_a_command():
    done = run("doctor")
    assert done.returncode == int("\n  problem " in done.stdout), done.stdout + done.stderr
    for name in ("python", "torch", "xformers", "audiocraft", "dora", "flashy", "ffmpeg", "SLURM", "Dora folder",
                 "cpu bfloat16"):
        assert f" {name} " in done.stdout, name
    assert "ok       import audiocraft" in done.stdout and "Traceback" not in done.stdout + done.stderr
