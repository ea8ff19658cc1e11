"""Dora's launcher with SLURM (whose commands are scripts here) and without: dependencies, local commands, errors."""
import argparse

import pytest
from dora import grid
from dora.conf import SubmitRules
from dora.grid import RunGridArgs, run_grid

from magnet_plugin.sweeps import catalog, slurm

from ..helpers.toy_grids import Dora, epoch
from .conftest import FakeSlurm

TRAINING = {"masking.span_len": 3}
WAITS = "#SBATCH --dependency="


def evaluations(dora: Dora, source: str = "") -> list[dict]:
    """Two evaluations of `source`, by default of the model of TRAINING."""
    source = source or f"//sig/{dora.folder(TRAINING).name}"
    return [{"continue_from": source, "execute_only": "evaluate", "label": label} for label in "ab"]


def submit(dora: Dora, *arrays: list[dict], retry: bool = False) -> None:
    """`dora grid --no_monitoring` for a grid of arrays of jobs."""
    slurm.patch_dora(dora.main, {"gpus": 0, "partition": "tiny", "nodelist": ["a", "b"]})
    run_grid(dora.main, dora.arrays(*arrays), "toy", rules=SubmitRules(retry=retry), args=RunGridArgs(monitor=False))


def test_evaluations_wait_for_the_training_of_their_model(dora: Dora, fake_slurm: FakeSlurm) -> None:
    submit(dora, [TRAINING], evaluations(dora))
    training, evaluation = fake_slurm.script(0), fake_slurm.script(1)
    assert fake_slurm.submissions() == 2 and not any(line.startswith(WAITS) for line in training)
    assert {f"{WAITS}afterok:{fake_slurm.first}", "#SBATCH --kill-on-invalid-dep=yes", "#SBATCH --nodelist=a,b",
            "#SBATCH --partition=tiny", "#SBATCH --array=0-1%2"} <= set(evaluation)


def test_evaluations_of_a_trained_model_do_not_wait(dora: Dora, fake_slurm: FakeSlurm) -> None:
    dora.ran(TRAINING, *[epoch(1.0)] * 3)
    submit(dora, evaluations(dora), evaluations(dora, "//bundled/magnet-16khz"))
    assert fake_slurm.submissions() == 2
    assert not any(line.startswith(WAITS) for number in (0, 1) for line in fake_slurm.script(number))


@pytest.mark.parametrize("started", [True, False])
def test_an_evaluation_is_not_submitted_if_no_job_trains_its_model(dora: Dora, fake_slurm: FakeSlurm, started: bool,
                                                                   capsys: pytest.CaptureFixture[str]) -> None:
    if started:
        submit(dora, [TRAINING])
        fake_slurm.set_states({str(fake_slurm.first): "FAILED"})
    with pytest.raises(SystemExit):
        submit(dora, [TRAINING], evaluations(dora)) if started else submit(dora, evaluations(dora))
    printed = capsys.readouterr().err
    assert f"continue_from=//sig/{dora.folder(TRAINING).name}: the training of this model is incomplete" in printed
    assert "--retry" in printed and fake_slurm.submissions() == int(started)
    if started:
        submit(dora, [TRAINING], evaluations(dora), retry=True)
        assert f"{WAITS}afterok:{fake_slurm.first + 1}" in fake_slurm.script(2)


def test_dora_launch_evaluates_what_exists(dora: Dora, fake_slurm: FakeSlurm) -> None:
    slurm.patch_dora(dora.main)
    shepherd = slurm.LaunchShepherd(dora.main)
    sheep = shepherd.get_sheep_from_argv(dora.argv(evaluations(dora)[0]))
    shepherd.maybe_submit_lazy(sheep, dora.main.get_slurm_config(), SubmitRules())
    shepherd.commit()
    assert not any(line.startswith(WAITS) for line in fake_slurm.script(0))


def test_what_sbatch_rejects_is_reported_with_a_remedy(dora: Dora, fake_slurm: FakeSlurm,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    fake_slurm.program("sbatch", "echo invalid partition >&2; exit 1")
    with pytest.raises(SystemExit):
        submit(dora, [TRAINING])
    printed = capsys.readouterr().err
    assert "SLURM rejected the job" in printed and "invalid partition" in printed and "MAGNET_SLURM_PARTITION" in printed


def test_without_slurm_a_grid_prints_its_commands_trainings_first(dora: Dora, no_slurm: None,
                                                                  capsys: pytest.CaptureFixture[str]) -> None:
    first, second = evaluations(dora)
    dora.ran(first, {"evaluate": {"fad": 1.0}})
    submit(dora, [TRAINING], [first, second])
    out, err = capsys.readouterr()
    assert "SLURM is not available on this machine (srun and sbatch are not on PATH): nothing was submitted." in err
    assert "1 of 3 jobs have already finished here." in err and "one after the other, in this order" in err
    commands = [line for line in out.splitlines() if line.startswith("dora ")]
    assert ["execute_only=evaluate" in command for command in commands] == [False, True] and "label=b" in commands[1]


def test_dora_finds_grids_that_have_no_file(dora: Dora, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.patch_dora(dora.main)
    found = grid._get_explore(argparse.Namespace(grid="magnet.tiny.ablate_span"), dora.main)
    assert found is catalog.load_explorer("magnet.tiny.ablate_span")
    for name, status in ((None, 0), ("magnet.ablate_spam", 1)):
        with pytest.raises(SystemExit) as ended:
            grid._get_explore(argparse.Namespace(grid=name), dora.main)
        assert ended.value.code == status and "magnet.tiny.ablate_span" in capsys.readouterr().err
