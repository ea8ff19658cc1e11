"""The suite runs as if on a fresh machine."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .helpers.bare_machine import bare

SLURM = ("srun", "sbatch", "squeue", "sacct", "sinfo", "scancel")


def test_installed_programs_and_settings_are_hidden(tmp_path: Path) -> None:
    """A machine with SLURM, ffmpeg and a user's settings looks like one without, in subprocesses too."""
    installed = tmp_path / "installed"
    installed.mkdir()
    for name in (*SLURM, "ffmpeg"):
        (installed / name).write_text("#!/bin/sh\necho reached; exit 7\n")
        (installed / name).chmod(0o755)
    path = os.pathsep.join([str(installed), os.environ["PATH"]])
    settings = {"SLURM_JOB_ID": "7", "MAGNET_SLURM_PARTITION": "gpu", "AUDIOCRAFT_TEAM": "lab", "USER": "me", "RANK": "1",
                "HF_HOME": "/cache"}
    assert shutil.which("srun", path=path)
    environ = bare({**os.environ, **settings, "PATH": path}, tmp_path / "bare")
    code = ("import os, pathlib, shutil; "
            f"print([name for name in {(*SLURM, 'ffmpeg')!r} if shutil.which(name)], "
            f"[name for name in {list(settings)!r} if name in os.environ], list(pathlib.Path.home().iterdir()))")
    out = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[] [] []"
    subprocess.run(["make", "--version"], env=environ, capture_output=True, check=True)


def test_this_run_is_on_a_bare_machine(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("markexpr") in ("gpu", "slurm"):
        pytest.skip("these suites use the machine as it is")
    assert not [name for name in SLURM if shutil.which(name)]
    assert os.environ["HF_HUB_OFFLINE"] == "1" and Path.home().name == "home"
