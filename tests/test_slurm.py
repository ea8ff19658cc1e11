"""What jobs ask SLURM for, and grids at both scales from one definition."""
import importlib
import types
import typing as tp
from pathlib import Path

import pytest
from dora.conf import SlurmConfig

from magnet_plugin import environment, slurm

from .conftest import compose


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


class Herd:
    """As much of a launcher as a grid needs; keeps the jobs."""

    def __init__(self, jobs: list, asked: SlurmConfig, default: SlurmConfig, argv: tuple = ()) -> None:
        self.jobs, self._slurm, self.argv = jobs, asked, argv
        self._main = types.SimpleNamespace(get_slurm_config=lambda: default)

    def slurm(self, **needs: tp.Any) -> "Herd":
        return Herd(self.jobs, SlurmConfig(**{**self._slurm.__dict__, **needs}), self._main.get_slurm_config(), self.argv)

    def bind(self, *settings: tp.Any) -> "Herd":
        argv = [part for one in settings
                for part in (one if isinstance(one, list) else [f"{key}={value}" for key, value in one.items()])]
        return Herd(self.jobs, self._slurm, self._main.get_slurm_config(), (*self.argv, *argv))

    def job_array(self) -> tp.Any:
        import contextlib
        return contextlib.nullcontext()

    def __call__(self, job: dict) -> None:
        self.jobs.append((self.bind(job).argv, self._slurm))


def jobs_of(name: str, **asked: tp.Any) -> list[tuple[tuple[str, ...], SlurmConfig]]:
    grid = importlib.import_module(f"{environment.grids_package()}.{name}")
    herd = Herd([], slurm.settings(asked, environ={}), slurm.settings(environ={}))
    grid.explorer(herd)
    return herd.jobs


DATA = [f"datasource.{split}=egs/{split}" for split in ("train", "valid", "evaluate", "generate")]


def test_the_span_grid_is_every_length_with_and_without_restricted_context() -> None:
    for name in ("magnet.ablate_span", "magnet.tiny.ablate_span"):
        jobs = jobs_of(name)
        found = {tuple(part for part in argv if part.startswith(("masking", "transformer_lm"))) for argv, _ in jobs}
        assert found == {(f"masking.span_len={span}", f"transformer_lm.subcodes_context={context}")
                         for span in (1, 2, 3, 4, 5, 10) for context in (5, -1)} and len(jobs) == 12


@pytest.mark.parametrize("name, data", [("magnet.ablate_span", DATA), ("magnet.tiny.ablate_span", [])])
def test_every_job_composes(name: str, data: list[str]) -> None:
    jobs = jobs_of(name)
    cfg = compose(*jobs[-1][0], *data)
    assert cfg.masking.span_len == cfg.transformer_lm.span_len == 10 and cfg.transformer_lm.subcodes_context == -1
    assert all(asked == jobs[0][1] for _, asked in jobs), "one array, one request"
    assert cfg.dataset.batch_size % max(jobs[0][1].gpus, 1) == 0


def test_what_the_user_asks_slurm_for_is_stronger_than_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {asked.gpus for _, asked in jobs_of("magnet.ablate_span")} == {32}
    assert {asked.gpus for _, asked in jobs_of("magnet.ablate_span", gpus=8)} == {8}, "the command line"
    monkeypatch.setenv("MAGNET_SLURM_TIME", "7")
    assert {asked.time for _, asked in jobs_of("magnet.tiny.ablate_span")} == {SlurmConfig().time}, "not the scale's"


def test_overrides_go_to_every_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_GRID_OVERRIDES", "optim.epochs=1 label='two words'")
    for argv, _ in jobs_of("magnet.tiny.ablate_span"):
        assert {"optim.epochs=1", "label=two words"} <= set(argv)


def test_local_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheep: tp.Any = types.SimpleNamespace(xp=types.SimpleNamespace(argv=["solver=magnet", "label=a b"]))
    monkeypatch.chdir(tmp_path)
    assert slurm.local_command(sheep, SlurmConfig(gpus=0), "magnet_plugin") == \
        "dora -P magnet_plugin run solver=magnet 'label=a b'"
    monkeypatch.chdir(environment.PACKAGE.parent)
    assert slurm.local_command(sheep, SlurmConfig(gpus=2), "magnet_plugin") == "dora run -d solver=magnet 'label=a b'"
