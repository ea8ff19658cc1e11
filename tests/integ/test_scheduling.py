"""Dora's commands on a machine without SLURM, and a real run that is preempted."""
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .runs import DEBUG, ROOT, dora, environment, history, signature, without_times

pytestmark = pytest.mark.integ
# Two data workers, which apply the dropout of texts.
RUN = [*DEBUG[:1], "num_threads=1", "optim.epochs=2", "optim.updates_per_epoch=12", "+dataset.train.num_workers=2",
       "dataset.train.merge_text_p=0.5", "dataset.train.drop_desc_p=0.3"]


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH on which a job can be run, and none submitted."""
    (tmp_path / "bin").mkdir()
    for program in ("git", "env", "sh"):
        os.symlink(str(shutil.which(program)), tmp_path / "bin" / program)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def test_without_slurm_a_grid_prints_the_local_commands(no_slurm: None, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_GRID_OVERRIDES", "optim.epochs=1 optim.updates_per_epoch=2 "
                       "evaluate.metrics.instruments=false dataset.evaluate.num_samples=8")
    out = dora(tmp_path, "-P", "magnet_plugin", "grid", "magnet.tiny.ablate_span", cwd=tmp_path).stdout
    assert "one after the other, in this order" in out
    commands = [line for line in out.splitlines() if line.startswith("dora ")]
    assert len(set(commands)) == 12
    assert all(command.startswith("dora -P magnet_plugin run solver=magnet/tiny ") for command in commands)
    dora(tmp_path, *shlex.split(commands[0])[1:], cwd=tmp_path)
    again = dora(tmp_path, "-P", "magnet_plugin", "grid", "magnet.tiny.ablate_span", cwd=tmp_path).stdout
    assert "1 of 12 jobs have already finished here" in again and commands[0] not in again.splitlines()


def test_without_slurm_a_launch_prints_the_local_command(no_slurm: None, tmp_path: Path) -> None:
    done = dora(tmp_path, "launch", "solver=magnet/debug", "seed=1", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "\ndora run solver=magnet/debug seed=1\n" in done.stdout


def test_a_paper_scale_grid_without_data_names_the_missing_settings(no_slurm: None, tmp_path: Path) -> None:
    done = dora(tmp_path, "grid", "magnet.ablate_span", "--dry_run", check=False)
    assert done.returncode == 1
    assert re.search(r"datasource\.\w+", done.stdout) and 'MAGNET_GRID_OVERRIDES="KEY=VALUE' in done.stdout.splitlines()[-1]


def test_a_run_preempted_within_an_epoch_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """As from SLURM, the signal reaches every process of the job, including data workers and the server that forks them."""
    dora(tmp_path / "undisturbed", "run", *RUN)
    slow = subprocess.Popen([sys.executable, "-m", "dora", "run", *RUN], cwd=ROOT, env=environment(tmp_path),
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    assert slow.stdout is not None
    for line in slow.stdout:
        if "Train | Epoch 2 | 5/12" in line:
            os.killpg(slow.pid, signal.SIGUSR1)
            break
    rest = slow.stdout.read()
    assert slow.wait() == 128 + signal.SIGUSR1, rest[-3000:]
    sig = signature(tmp_path, *RUN)
    run = tmp_path / "runs" / "xps" / sig
    assert len(history(tmp_path, sig)) == 1 and (run / "preempted.th").exists()
    out = dora(tmp_path, "run", *RUN).stdout
    assert re.search(r"Resuming in epoch 2 after [5-9] of 12 updates", out)
    assert not (run / "preempted.th").exists()
    assert without_times(history(tmp_path, sig)) == without_times(history(tmp_path / "undisturbed", sig))
    import magnet_plugin
    magnet_plugin.register()
    import torch

    from magnet_plugin.models import checkpoints
    one, two = (checkpoints.load(folder / "runs" / "xps" / sig / "checkpoint.th")
                for folder in (tmp_path, tmp_path / "undisturbed"))
    for part in ("model", "optimizer", "ema", "best_state"):
        for name, value in tensors(one[part]):
            assert torch.equal(value, dict(tensors(two[part]))[name]), (part, name)


def tensors(state: object, path: str = "") -> list:
    """All tensors in nested dicts and lists, by path."""
    import torch
    if isinstance(state, torch.Tensor):
        return [(path, state)]
    parts = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else []
    return [found for name, part in parts for found in tensors(part, f"{path}/{name}")]
