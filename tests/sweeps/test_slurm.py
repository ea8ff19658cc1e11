"""What jobs ask SLURM for, and for whom they wait."""
import json
import types
import typing as tp
from pathlib import Path

import pytest
from dora.conf import SlurmConfig

from magnet_plugin import environment
from magnet_plugin.sweeps import slurm


def test_the_environment_is_stronger_than_the_team_and_the_team_than_the_config() -> None:
    config = {"gpus": 1, "time": 3600, "partition": None, "qos": None}
    team = {"partition": "gpu", "account": "music", "qos": "normal"}
    environ = {"MAGNET_SLURM_PARTITION": "short", "MAGNET_SLURM_GPUS": "8", "MAGNET_SLURM_QOS": "", "MAGNET_CACHE": "/x",
               "MAGNET_SLURM_SETUP": "module load cuda; source env", "MAGNET_SLURM_ONE_TASK_PER_NODE": "true",
               "MAGNET_SLURM_MEM_PER_GPU": "2"}
    got = slurm.settings(config, team, environ=environ)
    assert (got.partition, got.account, got.qos, got.time, got.gpus) == ("short", "music", None, 3600, 8)
    assert got.setup == ["module load cuda", "source env"] and got.one_task_per_node is True and str(got.mem_per_gpu) == "2"


def test_no_sites_partition_is_asked_for() -> None:
    assert SlurmConfig().partition, "Dora's default names one"
    assert slurm.settings(environ={}).partition is None
    from omegaconf import OmegaConf
    for path in (environment.config_dir() / "teams").glob("*.yaml"):
        team = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        for cluster in team.values():
            slurm.settings(cluster["slurm"], environ={})
            assert not any(cluster["partitions"].values())


def test_ranks_meet_on_a_port_that_is_nobody_elses() -> None:
    """Below the ports of outgoing connections, and another for each of some thousand jobs."""
    ports = []
    for job in range(9000, 20000):
        slurm.set_master_port(environ := {"SLURM_JOB_ID": str(job)})
        ports.append(int(environ["MASTER_PORT"]))
    assert len(set(ports)) == len(ports) and min(ports) >= 1024 and max(ports) < 32768
    for environ in ({}, {"SLURM_JOB_ID": "7", "MASTER_PORT": "5"}):
        slurm.set_master_port(changed := dict(environ))
        assert changed == environ


@pytest.mark.parametrize("environ, message", [
    ({"MAGNET_SLURM_GPUS": "two"}, "MAGNET_SLURM_GPUS='two' is not int"),
    ({"MAGNET_SLURM_GPUS": ""}, "MAGNET_SLURM_GPUS='' is not int"),
    ({"MAGNET_SLURM_MEM_PER_GPU": "1.5"}, "mem_per_gpu=1.5 has to be a whole number"),
    ({"MAGNET_SLURM_FORCE_CHDIR": "maybe"}, "is not bool"),
    ({"MAGNET_SLURM_PARTITON": "gpu"}, "MAGNET_SLURM_PARTITON is none of SLURM's settings.*MAGNET_SLURM_PARTITION"),
])
def test_a_bad_variable_is_named(environ: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slurm.settings(environ=environ)


def test_a_bad_section_is_named() -> None:
    with pytest.raises(ValueError, match="there is no partitions"):
        slurm.settings({"partitions": "gpu"}, environ={})


def test_local_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheep: tp.Any = types.SimpleNamespace(xp=types.SimpleNamespace(argv=["solver=magnet", "label=a b"]))
    monkeypatch.chdir(tmp_path)
    assert slurm.local_command(sheep, SlurmConfig(gpus=0), "magnet_plugin") == \
        "dora -P magnet_plugin run solver=magnet 'label=a b'"
    monkeypatch.chdir(environment.PACKAGE.parent)
    assert slurm.local_command(sheep, SlurmConfig(gpus=2), "magnet_plugin") == "dora run -d solver=magnet 'label=a b'"


class Sheep(types.SimpleNamespace):
    """As much of Dora's as the shepherd asks of a job: where its records are, and whether it is still to come."""

    def is_done(self, mode: str) -> bool:
        return bool(self.over)


@pytest.fixture
def shepherd(tmp_path: Path) -> tp.Any:
    """A shepherd with runs by signature: one that is trained, one whose job runs, one whose job is over but failed."""
    shepherd = slurm.GridShepherd.__new__(slurm.GridShepherd)
    shepherd.main = types.SimpleNamespace(dora=types.SimpleNamespace(dir=tmp_path, xps="xps"))  # type: ignore[assignment]
    sheeps = {}
    for sig, epochs, over in (("trained", 2, True), ("running", 1, False), ("failed", 1, True), ("fresh", 0, False)):
        folder = tmp_path / "xps" / sig
        folder.mkdir(parents=True)
        (folder / ".argv.json").write_text('["optim.epochs=2"]')
        (folder / "history.json").write_text(json.dumps([{"train": {"ce": 1.0}}] * epochs))
        sheeps[sig] = Sheep(xp=types.SimpleNamespace(folder=folder), over=over, job=types.SimpleNamespace(job_id=f"7_{sig}"))
    shepherd.get_sheep_from_sig = sheeps.__getitem__            # type: ignore[method-assign, assignment]
    return shepherd


def job(source: tp.Optional[str], execute_only: tp.Optional[str] = "evaluate") -> tp.Any:
    return types.SimpleNamespace(xp=types.SimpleNamespace(cfg=types.SimpleNamespace(continue_from=source,
                                                                                    execute_only=execute_only)))


def test_evaluations_wait_for_the_training_of_their_model(shepherd: tp.Any, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job("//sig/running"), job("//sig/trained"), job("//sig/running"), job("//bundled/magnet-16khz"),
            job("//sig/fresh"), job("//sig/failed", execute_only=None), job(None)]
    assert shepherd.parents(jobs) == ["7_running", "7_fresh"]
    assert slurm.LaunchShepherd.parents(shepherd, jobs) == [], "`dora launch` evaluates the weights that exist"
    # submitit only looks for srun on PATH; the script for sbatch is written without running it.
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    shepherd._after = ["12", "13"]
    needs = slurm.settings({"gpus": 0, "partition": "tiny", "nodelist": ["a", "b"]}, environ={})
    script = shepherd._get_submitit_executor("name", tmp_path, needs)._make_submission_file_text("command", "id")
    assert {"#SBATCH --dependency=afterok:12:13", "#SBATCH --kill-on-invalid-dep=yes", "#SBATCH --nodelist=a,b",
            "#SBATCH --partition=tiny"} <= set(script.splitlines())


@pytest.mark.parametrize("sig", ["failed", "nowhere"])
def test_an_evaluation_of_what_nobody_trains_is_not_submitted(shepherd: tp.Any, sig: str,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        shepherd.parents([job(f"//sig/{sig}")])
    assert f"continue_from=//sig/{sig} is not trained" in (told := capsys.readouterr().err) and "--retry" in told
