"""Real Dora runs: train, get killed, resume, continue from another run, evaluate, load by signature."""
import os
import signal
from pathlib import Path

import pytest
import soundfile

from ..helpers import forked
from .runs import DEBUG, dora, environment, history, without_times

pytestmark = pytest.mark.integ
LONGER = [*DEBUG, "optim.epochs=3", "optim.updates_per_epoch=12"]


def signatures(folder: Path) -> set[str]:
    return {path.name for path in (folder / "runs" / "xps").iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An undisturbed run of three epochs: its folder and its signature."""
    folder = tmp_path_factory.mktemp("finished")
    forked.dora("run", *LONGER, env=environment(folder))
    [sig] = signatures(folder)
    return folder, sig


def state_of(folder: Path, sig: str) -> dict:
    from magnet_plugin.models import checkpoints
    return checkpoints.load(folder / "runs" / "xps" / sig / "checkpoint.th")


def test_a_run_writes_history_samples_and_tensorboard(finished: tuple[Path, str]) -> None:
    folder, sig = finished
    epochs = history(folder, sig)
    assert len(epochs) == 3
    assert {"ce_q1", "ce_q2", "ce_q3", "ce_q4"} <= set(epochs[0]["valid"]), "validation cycles through the stages"
    assert set(epochs[-1]) == {"train", "valid", "evaluate", "generate"}
    run = folder / "runs" / "xps" / sig
    samples = list((run / "samples").glob("3/*.wav"))
    assert len(samples) == 2 and all(path.with_suffix(".json").exists() for path in samples)
    assert list(run.rglob("events.out.tfevents*"))


def test_a_run_that_is_killed_resumes_after_its_last_epoch(finished: tuple[Path, str], tmp_path: Path) -> None:
    done, sig = finished
    with forked.started_dora("run", *LONGER, env=environment(tmp_path)) as (process, output):
        forked.wait_for("Train | Epoch 2 | 6/12", process, output)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode == -signal.SIGKILL
    interrupted = history(tmp_path, sig)
    assert len(interrupted) == 1 and state_of(tmp_path, sig)["optimizer"]["state"][0]["step"] == 12
    out = forked.dora("run", *LONGER, env=environment(tmp_path)).stdout
    assert "Train | Epoch 2" in out and "Train | Epoch 1 |" not in out
    expected, got = history(done, sig), history(tmp_path, sig)
    assert len(got) == 3
    assert without_times(got)[0] == without_times(interrupted)[0]
    one, two = state_of(done, sig), state_of(tmp_path, sig)
    assert {int(s["step"]) for s in two["optimizer"]["state"].values()} == {36}
    assert two["lr_scheduler"] == one["lr_scheduler"] and two["ema"]["count"] == one["ema"]["count"]
    # The seed determines data order, stages, masks and initial weights, but not condition dropout after a restart.
    assert [epoch["train"]["lr"] for epoch in got] == [epoch["train"]["lr"] for epoch in expected]
    assert abs(got[-1]["valid"]["ce"] - expected[-1]["valid"]["ce"]) < 0.3
    for key, value in two["ema"]["state"]["model"].items():
        assert value.isfinite().all(), key


def test_a_finished_run_is_evaluated_in_place_and_continued_by_another(finished: tuple[Path, str]) -> None:
    folder, sig = finished
    env, before = environment(folder), signatures(folder)
    out = forked.dora("run", *LONGER, "execute_only=evaluate", "execute_inplace=true", env=env).stdout
    assert "Evaluate Summary" in out
    out = forked.dora("run", *DEBUG, f"continue_from=//sig/{sig}", "optim.epochs=1", env=env).stdout
    assert "Checkpoint source is not the current xp" in out
    [other] = signatures(folder) - before
    assert history(folder, other)[0]["train"]["ce"] < history(folder, sig)[0]["train"]["ce"], "trained weights"


def load(sig: str) -> None:
    import torch
    from audiocraft.models import MAGNeT
    from audiocraft.solvers.musicgen import MusicGenSolver
    solver = MusicGenSolver.get_eval_solver_from_sig(sig, autocast=False)
    model = MAGNeT.get_pretrained(f"//sig/{sig}")
    assert type(solver).__name__ == "MagnetSolver" and not solver.model.training
    best, loaded = solver.best_state.states["model"], model.lm.state_dict()
    assert all(torch.equal(best[key], loaded[key]) for key in loaded)
    assert model.generate(["a reel"], seed=1).shape == (1, 1, 32000)


def test_a_finished_run_loads_by_signature(finished: tuple[Path, str]) -> None:
    folder, sig = finished
    forked.call(forked.with_dora_dir, load, sig, env=environment(folder))


def load_stereo(sig: str) -> None:
    from magnet_plugin import MAGNeT
    model = MAGNeT.get_pretrained(f"//sig/{sig}", device="cpu")
    assert model.generate(["a reel"], seed=1).shape == (1, 2, 32000)


def test_a_stereo_run_trains_samples_and_loads(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out = forked.dora("run", *DEBUG, "channels=2", "interleave_stereo_codebooks.use=true", "transformer_lm.n_q=8",
                      "generate.lm.decoding_steps=[2,1,1,1,1,1,1,1]", "optim.epochs=1", "dataset.valid.num_samples=32",
                      "evaluate.metrics.frechet=true", env=env).stdout
    assert "files are mono" in out
    [sig] = signatures(tmp_path)
    [epoch] = history(tmp_path, sig)
    assert {f"ce_q{stage}" for stage in range(1, 9)} <= set(epoch["valid"]) and epoch["evaluate"]["frechet"] > 0
    samples = list((tmp_path / "runs" / "xps" / sig / "samples").glob("1/*.wav"))
    assert [soundfile.info(path).channels for path in samples] == [2, 2]
    forked.call(forked.with_dora_dir, load_stereo, sig, env=env)


@pytest.mark.parametrize("overrides, words", [
    (["execute_only=evaluate", "label=none"], ["continue_from=//sig/SIG"]),
    (["execute_only=evaluate", "execute_inplace=true"], ["does not exist; train this experiment first"]),
    (["continue_from=//sig/00000000"], ["00000000"]),
    (["transformer_lm.card=1024"], ["set transformer_lm.card=512"]),
    (["continue_from=//bundled/magnet-16khz"], ["emb.0.weight: [513, 128] instead of [513, 64]"])])
def test_a_misconfigured_run_fails_before_training(tmp_path: Path, overrides: list[str], words: list[str]) -> None:
    failed = forked.dora("run", *DEBUG, *overrides, env=environment(tmp_path), check=False)
    assert failed.returncode and all(word in failed.stdout for word in words), failed.stdout[-2000:]
    assert "Epoch 1" not in failed.stdout


def test_dora_finds_the_package_by_name_from_another_directory(tmp_path: Path) -> None:
    dora(tmp_path, "-P", "magnet_plugin", "run", *DEBUG, "optim.epochs=1", "optim.updates_per_epoch=2", cwd=tmp_path)
    [sig] = signatures(tmp_path)
    assert len(history(tmp_path, sig)) == 1
