"""Real runs: train, be killed, go on, continue elsewhere, evaluate, load by signature."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .runs import DEBUG, ROOT, dora, environment, history, signature, without_times

pytestmark = pytest.mark.integ
LONGER = [*DEBUG, "optim.epochs=3", "optim.updates_per_epoch=12"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An undisturbed run of three epochs."""
    folder = tmp_path_factory.mktemp("finished")
    dora(folder, "run", *LONGER)
    return folder, signature(folder, *LONGER)


def state_of(folder: Path, sig: str) -> dict:
    import magnet_plugin
    magnet_plugin.register()
    from magnet_plugin.models import checkpoints
    return checkpoints.load(folder / "runs" / "xps" / sig / "checkpoint.th")


def test_a_run_leaves_history_samples_and_tensorboard(finished: tuple[Path, str]) -> None:
    folder, sig = finished
    epochs = history(folder, sig)
    assert len(epochs) == 3
    assert {"ce_q1", "ce_q2", "ce_q3", "ce_q4"} <= set(epochs[0]["valid"]), "validation takes the stages in turn"
    assert set(epochs[-1]) == {"train", "valid", "evaluate", "generate"}
    run = folder / "runs" / "xps" / sig
    samples = list((run / "samples").glob("3/*.wav"))
    assert len(samples) == 2 and all(path.with_suffix(".json").exists() for path in samples)
    assert list(run.rglob("events.out.tfevents*"))


def test_killed_in_mid_epoch_and_started_again(finished: tuple[Path, str], tmp_path: Path) -> None:
    """kill -9 in the second epoch; afterwards everything is as if nothing had happened."""
    done, sig = finished
    slow = subprocess.Popen([sys.executable, "-m", "dora", "run", *LONGER], cwd=ROOT, env=environment(tmp_path),
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    assert slow.stdout is not None
    for line in slow.stdout:                       # in the middle of epoch 2
        if "Train | Epoch 2 | 6/12" in line:
            break
    os.killpg(slow.pid, signal.SIGKILL)
    assert slow.wait() == -signal.SIGKILL
    interrupted = history(tmp_path, sig)
    assert len(interrupted) == 1 and state_of(tmp_path, sig)["optimizer"]["state"][0]["step"] == 12
    time.sleep(0.1)
    out = dora(tmp_path, "run", *LONGER).stdout
    assert "Train | Epoch 2" in out and "Train | Epoch 1 |" not in out
    expected, got = history(done, sig), history(tmp_path, sig)
    assert len(got) == 3
    assert without_times(got)[0] == without_times(interrupted)[0]
    one, two = state_of(done, sig), state_of(tmp_path, sig)
    assert {int(s["step"]) for s in two["optimizer"]["state"].values()} == {36}
    assert two["lr_scheduler"] == one["lr_scheduler"] and two["ema"]["count"] == one["ema"]["count"]
    # Data order, stages, masks and initial weights depend on the seed alone; condition dropout draws on the process.
    for metric in ("lr",):
        assert [epoch["train"][metric] for epoch in got] == [epoch["train"][metric] for epoch in expected]
    assert abs(got[-1]["valid"]["ce"] - expected[-1]["valid"]["ce"]) < 0.3
    for key, value in two["ema"]["state"]["model"].items():
        assert value.isfinite().all(), key


def test_execute_only_continue_from_and_loading_by_signature(finished: tuple[Path, str]) -> None:
    folder, sig = finished
    out = dora(folder, "run", *LONGER, "execute_only=evaluate", "execute_inplace=true").stdout
    assert "Evaluate Summary" in out
    out = dora(folder, "run", *DEBUG, f"continue_from=//sig/{sig}", "optim.epochs=1").stdout
    assert "checkpoints are not" in out.lower() or "Checkpoint source is not the current xp" in out
    other = history(folder, signature(folder, *DEBUG, f"continue_from=//sig/{sig}", "optim.epochs=1"))
    assert other[0]["train"]["ce"] < history(folder, sig)[0]["train"]["ce"], "it starts from trained weights"
    failed = dora(folder, "run", *DEBUG, "execute_only=evaluate", "label=none", check=False)
    assert failed.returncode and "continue_from=//sig/SIG" in failed.stdout
    failed = dora(folder, "run", *DEBUG, "continue_from=//sig/00000000", check=False)
    assert failed.returncode and "00000000" in failed.stdout
    code = ("import torch, magnet_plugin; magnet_plugin.register()\n"
            "from audiocraft.solvers.musicgen import MusicGenSolver\n"
            f"solver = MusicGenSolver.get_eval_solver_from_sig('{sig}', autocast=False)\n"
            "from audiocraft.models import MAGNeT\n"
            f"model = MAGNeT.get_pretrained('//sig/{sig}')\n"
            "assert type(solver).__name__ == 'MagnetSolver' and not solver.model.training\n"
            "best, loaded = solver.best_state.states['model'], model.lm.state_dict()\n"
            "assert all(torch.equal(best[k], loaded[k]) for k in loaded)\n"
            "print(model.generate(['a reel'], seed=1).shape)")
    done = subprocess.run([sys.executable, "-c", code], env=environment(folder), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "torch.Size([1, 1, 32000])" in done.stdout


def test_a_misfit_is_told_before_any_training(tmp_path: Path) -> None:
    failed = dora(tmp_path, "run", *DEBUG, "transformer_lm.card=1024", check=False)
    assert failed.returncode and "set transformer_lm.card=512" in failed.stdout and "Epoch 1" not in failed.stdout


def test_weights_of_another_size_are_told(tmp_path: Path) -> None:
    failed = dora(tmp_path, "run", *DEBUG, "continue_from=//bundled/magnet-16khz", check=False)
    assert failed.returncode and "does not fit the model" in failed.stdout
    assert "emb.0.weight: [513, 128] instead of [513, 64]" in failed.stdout


def test_from_another_directory_by_package_name(tmp_path: Path) -> None:
    one_epoch = [*DEBUG, "optim.epochs=1", "optim.updates_per_epoch=2"]
    dora(tmp_path, "-P", "magnet_plugin", "run", *one_epoch, cwd=tmp_path)
    assert len(history(tmp_path, signature(tmp_path, *one_epoch, cwd=tmp_path, package=("-P", "magnet_plugin")))) == 1
