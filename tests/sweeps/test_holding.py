"""One process at a time works on a run, and a process that has ended never keeps the next one out."""
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from magnet_plugin.sweeps import holding
from magnet_plugin.sweeps.holding import LOCK, is_held

CODE = """
import os, sys, time
from pathlib import Path
from magnet_plugin.sweeps.holding import holding
with holding(Path(sys.argv[1])):
    if len(sys.argv) > 2 and not os.fork():
        time.sleep(20)
    print('held', flush=True)
    time.sleep(20)
"""


@contextlib.contextmanager
def other(folder: Path, *arguments: str):
    """Another process that holds a run; it is killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", CODE, str(folder), *arguments], stdout=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def test_a_second_process_is_refused_with_the_first_ones_number_and_host(tmp_path: Path) -> None:
    with other(tmp_path) as process:
        assert is_held(tmp_path)
        with pytest.raises(ValueError) as refused, holding.holding(tmp_path, wait=0.1):
            pass
    words = str(refused.value)
    assert f"in use by process {process.pid} on {socket.gethostname()}, since 20" in words and "\n" not in words
    assert "label=NAME" in words and str(tmp_path) in words


def test_a_killed_process_leaves_no_lock_even_if_its_children_live(tmp_path: Path) -> None:
    with other(tmp_path, "fork") as process:
        process.kill()
        process.wait()
        with holding.holding(tmp_path, wait=3):         # The child closes its copy as soon as it is scheduled.
            assert is_held(tmp_path) and json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not is_held(tmp_path)


def test_a_process_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    with other(tmp_path) as process:
        subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {process.pid}"])
        start = time.monotonic()
        with holding.holding(tmp_path, wait=10):
            assert time.monotonic() - start > 0.2


def test_a_requeued_job_waits_longer_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(holding, "WAIT_REQUEUED", 10.0)
    with other(tmp_path) as process:
        assert "SLURM job 77" in holding.holder_of(tmp_path)
        subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {process.pid}"])
        with holding.holding(tmp_path, wait=0):
            pass
    with other(tmp_path):
        monkeypatch.setenv("SLURM_JOB_ID", "78")
        with pytest.raises(ValueError, match="SLURM job 77"), holding.holding(tmp_path, wait=0):
            pass


def test_without_locks_or_a_folder_to_write_to_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holding.holding(tmp_path / "missing", wait=0):
        assert not is_held(tmp_path / "missing")

    def unsupported(*_: int) -> None:
        raise OSError(95, "Operation not supported")
    monkeypatch.setattr(holding.fcntl, "flock", unsupported)
    with holding.holding(tmp_path, wait=0), holding.holding(tmp_path, wait=0):
        assert not is_held(tmp_path)
