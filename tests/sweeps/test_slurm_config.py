"""What jobs request from SLURM: sources, types, errors; the port on which ranks meet."""
import pytest

from magnet_plugin import environment
from magnet_plugin.sweeps.slurm_config import set_master_port, slurm_settings


def test_the_environment_has_priority_over_the_team_and_the_team_over_the_config() -> None:
    config = {"gpus": 1, "time": 3600, "partition": None, "qos": None, "exclude": "node1"}
    team = {"partition": "gpu", "account": "music", "qos": "normal"}
    environ = {"MAGNET_SLURM_PARTITION": "short", "MAGNET_SLURM_GPUS": "8", "MAGNET_SLURM_QOS": "", "MAGNET_CACHE": "/x",
               "MAGNET_SLURM_SETUP": "module load cuda; source env", "MAGNET_SLURM_ONE_TASK_PER_NODE": "true",
               "MAGNET_SLURM_MEM_PER_GPU": "2", "MAGNET_SLURM_NODELIST": "a;b", "MAGNET_SLURM_EXCLUDE": "null"}
    got = slurm_settings(config, team, environ=environ)
    assert (got.partition, got.account, got.qos, got.exclude) == ("short", "music", None, None)
    assert (got.time, got.gpus, got.mem_per_gpu, got.one_task_per_node) == (3600, 8, 2, True)
    assert got.setup == ["module load cuda", "source env"] and got.nodelist == ["a", "b"]


def test_no_partition_of_any_cluster_is_requested_by_default() -> None:
    assert slurm_settings(environ={}).partition is None
    from omegaconf import OmegaConf
    for path in (environment.config_dir() / "teams").glob("*.yaml"):
        team = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        for cluster in team.values():                   # type: ignore[union-attr]
            slurm_settings(cluster["slurm"], environ={})
            assert not any(cluster["partitions"].values())


@pytest.mark.parametrize("environ, message", [
    ({"MAGNET_SLURM_GPUS": "two"}, "MAGNET_SLURM_GPUS='two' is not valid: gpus takes a value of type int. Correct"),
    ({"MAGNET_SLURM_GPUS": ""}, "MAGNET_SLURM_GPUS='' is not valid"),
    ({"MAGNET_SLURM_MEM_PER_GPU": "1.5"}, "MAGNET_SLURM_MEM_PER_GPU='1.5' is not valid: mem_per_gpu .* int"),
    ({"MAGNET_SLURM_FORCE_CHDIR": "maybe"}, r"'maybe' is not valid: force_chdir takes a value of type Optional\[bool\]"),
    ({"MAGNET_SLURM_PARTITON": "gpu"}, "MAGNET_SLURM_PARTITON='gpu': there is no SLURM field 'partiton'. .*partition"),
])
def test_an_invalid_variable_is_named_with_its_value_and_the_remedy(environ: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slurm_settings(environ=environ)


@pytest.mark.parametrize("layer, message", [
    ({"partitions": "gpu"}, "slurm.partitions='gpu': there is no SLURM field 'partitions'"),
    ({"setup": "module load cuda"}, r"slurm.setup='module load cuda' is not valid: setup takes a value of type List\[str\]"),
    ({"gpus": None}, "slurm.gpus=None is not valid"),
])
def test_an_invalid_field_of_a_config_is_named(layer: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slurm_settings(layer, environ={})


def test_every_job_has_its_own_port_for_its_ranks() -> None:
    """Below the ports of outgoing connections, and different for thousands of jobs in a row."""
    ports = []
    for job in range(9000, 20000):
        set_master_port(environ := {"SLURM_JOB_ID": str(job)})
        ports.append(int(environ["MASTER_PORT"]))
    assert len(set(ports)) == len(ports) and min(ports) >= 1024 and max(ports) < 32768
    for environ in ({}, {"SLURM_JOB_ID": "7", "MASTER_PORT": "5"}):
        set_master_port(changed := dict(environ))
        assert changed == environ
