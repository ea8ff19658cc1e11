"""Every grid, composed as `dora grid` composes it: at both scales, from one definition."""
import functools
import importlib
import os
import pkgutil
import typing as tp
from pathlib import Path

import pytest
from dora.conf import SlurmConfig
from dora.explore import Herd, Launcher

from magnet_plugin import environment
from magnet_plugin.sweeps import slurm

DATA = " ".join(f"datasource.{split}=egs/{split}" for split in ("train", "valid", "evaluate", "generate"))
GRIDS = Path(__file__).parents[2] / "grids" / "magnet"
NAMES = sorted(path.stem for path in GRIDS.glob("*.py") if path.stem != "__init__")
DECODING = ["ablate_guidance", "ablate_hybrid", "ablate_rescorer", "ablate_sampling", "ablate_steps"]
SCALES = {"magnet": DATA, "magnet.tiny": ""}


class Job(tp.NamedTuple):
    """What a grid asks for."""
    sig: str
    settings: dict[str, str]
    cfg: tp.Any
    slurm: SlurmConfig


class Shepherd:
    """In the place of Dora's, which wants folders."""

    def get_sheep_from_argv(self, argv: tp.Sequence[str]) -> tp.Any:
        import types
        return types.SimpleNamespace(xp=self.main.get_xp(argv))

    @property
    def main(self) -> tp.Any:
        from magnet_plugin.train import main
        return main


def explore(name: str, **asked: tp.Any) -> list[list[Job]]:
    """The jobs of a grid, array by array."""
    grid = importlib.import_module(f"{environment.grids_package()}.{name}")
    herd, shepherd = Herd(), Shepherd()
    needs = slurm.settings(shepherd.main.get_slurm_config().__dict__, asked, environ={})
    grid.explorer(Launcher(shepherd, needs, herd))      # type: ignore[arg-type]
    return [[Job(sig, dict(part.split("=", 1) for part in herd.sheeps[sig].xp.argv), herd.sheeps[sig].xp.cfg,
                 herd.slurm_configs[sig]) for sig in array] for array in herd.job_arrays]


@functools.cache
def jobs_of(scale: str, name: str) -> list[list[Job]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAGNET_GRID_OVERRIDES", SCALES[scale])
        for variable in [name for name in os.environ if name.startswith(slurm.PREFIX)]:
            patch.delenv(variable)
        return explore(f"{scale}.{name}")


def test_upstreams_names_are_there_and_each_grid_has_both_scales() -> None:
    import audiocraft.grids.magnet as upstream
    assert {module.name for module in pkgutil.iter_modules(upstream.__path__)} <= set(NAMES)
    assert sorted(path.stem for path in (GRIDS / "tiny").glob("*.py") if path.stem != "__init__") == NAMES
    assert set(NAMES) >= {f"ablate_{what}" for what in ("span", "context", "guidance", "steps", "sampling", "rescorer",
                                                        "hybrid", "scale")}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", SCALES)
def test_jobs_can_run(scale: str, name: str) -> None:
    """Settings that the solvers take, batches that the ranks can share, one request per array, no job twice."""
    from magnet_plugin.models import builders
    arrays = jobs_of(scale, name)
    jobs = [job for array in arrays for job in array]
    assert jobs and len({job.sig for job in jobs}) == len(jobs)
    for array in arrays:
        assert all(job.slurm == array[0].slurm for job in array)
    for job in jobs:
        builders.get_generation_options(job.cfg).check_codebooks(job.cfg.transformer_lm.n_q)
        assert (builders.get_sharding(job.cfg) is not None) == job.cfg.fsdp.use
        if builders.is_hybrid(job.cfg):
            frames = builders.get_prompt_options(job.cfg).frames
            assert 0 <= frames < 50 * job.cfg.dataset.segment_duration
        ranks = max(job.slurm.gpus, 1)
        splits = [job.cfg.dataset.get(split) for split in ("train", "valid", "evaluate", "generate")]
        for size in (job.cfg.dataset.batch_size, *(split.get("batch_size") for split in splits)):
            assert size is None or size % ranks == 0, (job.settings, size, ranks)
        assert job.slurm.gpus == 0 if scale == "magnet.tiny" else job.slurm.gpus >= 4
        assert job.cfg.optim.accumulate <= job.cfg.dataset.batch_size // ranks


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("ablate")])
def test_both_scales_are_one_definition(name: str) -> None:
    """The same differences between jobs; sizes and seconds are the scale's own."""
    def differences(scale: str) -> list[dict[str, str]]:
        jobs = [job.settings for array in jobs_of(scale, name) for job in array
                if name not in DECODING or "execute_only" in job.settings]
        shared = set.intersection(*(set(job.items()) for job in jobs))
        return [{key: value for key, value in job.items() if (key, value) not in shared} for job in jobs]
    paper, tiny = differences("magnet"), differences("magnet.tiny")
    if name == "ablate_scale":
        assert [one["model_scale"] for one in paper] == ["small", "medium"] and len(tiny) == 2
    elif name == "ablate_hybrid":
        assert all(list(one) == ["hybrid.prompt.duration"] for one in (*paper, *tiny))
    else:
        assert paper == tiny


def test_the_span_grid_is_every_length_with_and_without_restricted_context() -> None:
    for scale in SCALES:
        (jobs,) = jobs_of(scale, "ablate_span")
        assert {(job.cfg.transformer_lm.span_len, job.cfg.transformer_lm.subcodes_context) for job in jobs} == {
            (span, context) for span in (1, 2, 3, 4, 5, 10) for context in (5, -1)} and len(jobs) == 12


@pytest.mark.parametrize("name", DECODING)
@pytest.mark.parametrize("scale", SCALES)
def test_where_decoding_differs_one_model_is_trained(scale: str, name: str) -> None:
    (parent,), others = jobs_of(scale, name)
    assert parent.cfg.execute_only is None
    for job in others:
        assert (job.cfg.execute_only, job.cfg.continue_from) == ("evaluate", f"//sig/{parent.sig}")
        assert job.cfg.transformer_lm == parent.cfg.transformer_lm and job.cfg.solver == parent.cfg.solver
        assert any(job.cfg.evaluate.metrics.values())


def test_another_model_can_take_the_parents_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, source in (("0a1b2c3d", "//sig/0a1b2c3d"), ("//bundled/magnet-16khz", "//bundled/magnet-16khz")):
        monkeypatch.setenv("MAGNET_GRID_PARENT", given)
        (jobs,) = explore("magnet.tiny.ablate_hybrid")
        assert {job.cfg.continue_from for job in jobs} == {source} and len(jobs) == 5


def test_published_models_are_evaluated_in_the_settings_they_were_trained_in() -> None:
    names = ("magnet_pretrained_32khz_eval", "audio_magnet_pretrained_16khz_eval")
    (music,), (sound,) = (jobs_of("magnet", name) for name in names)
    seen = {job.cfg.continue_from: (job.cfg.transformer_lm.dim, job.cfg.dataset.segment_duration,
                                    job.cfg.generate.lm.decoding_steps[0]) for job in (*music, *sound)}
    assert seen == {"//pretrained/facebook/magnet-small-10secs": (1024, 10, 20),
                    "//pretrained/facebook/magnet-medium-10secs": (1536, 10, 20),
                    "//pretrained/facebook/magnet-small-30secs": (1024, 30, 60),
                    "//pretrained/facebook/magnet-medium-30secs": (1536, 30, 60),
                    "//pretrained/facebook/audio-magnet-small": (1024, 10, 20),
                    "//pretrained/facebook/audio-magnet-medium": (1536, 10, 20)}
    assert all(job.cfg.evaluate.metrics.fad and job.cfg.execute_only == "evaluate" for job in (*music, *sound))


def test_recipes_of_the_published_grids() -> None:
    small, medium = jobs_of("magnet", "magnet_32khz")
    for jobs, dim, gpus in ((small, 1024, 32), (medium, 1536, 64)):
        assert [(job.cfg.dataset.segment_duration, job.cfg.dataset.batch_size, job.cfg.transformer_lm.dim, job.slurm.gpus)
                for job in jobs] == [(10, 576, dim, gpus), (30, 192, dim, gpus)]
    assert {(job.cfg.optim.optimizer, job.cfg.fsdp.use) for job in small} == {("dadam", False)}
    assert {(job.cfg.optim.optimizer, job.cfg.optim.lr, job.cfg.fsdp.use) for job in medium} == {("adamw", 1e-4, True)}
    assert [array[0].cfg.fsdp.use for array in jobs_of("magnet", "audio_magnet_16khz")] == [False, True]


def test_what_the_user_asks_slurm_for_is_stronger_than_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_GRID_PARENT", "0a1b2c3d")
    monkeypatch.setenv("MAGNET_SLURM_TIME", "7")
    needs = [job.slurm for array in explore("magnet.tiny.ablate_hybrid", mem_per_gpu=9) for job in array]
    assert {one.mem_per_gpu for one in needs} == {9}, "the command line"
    assert {one.time for one in needs} == {7}, "the environment"
    assert {one.array_parallelism for one in needs} == {2}


def test_overrides_go_to_every_job_and_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_GRID_OVERRIDES", "generate.lm.rescorer_weight=0.5 'label=two words'")
    arrays = explore("magnet.tiny.ablate_rescorer")
    assert {job.cfg.label for array in arrays for job in array} == {"two words"}
    assert [job.cfg.generate.lm.rescorer_weight for job in arrays[1]] == [0.5]


def test_a_grid_without_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from magnet_plugin.train import main
    monkeypatch.setattr(slurm.GridShepherd, "__init__", lambda self: setattr(self, "main", main))
    shepherd = slurm.GridShepherd()                     # type: ignore[call-arg]
    with pytest.raises(SystemExit, match=r"datasource.train=FOLDER(.|\n)*MAGNET_GRID_OVERRIDES"):
        shepherd.get_sheep_from_argv(["solver=magnet/magnet_32khz", "datasource.valid=egs/valid"])
    with pytest.raises(SystemExit, match="give datasource.evaluate=FOLDER "):
        shepherd.get_sheep_from_argv(["solver=magnet/magnet_32khz", "execute_only=evaluate"])
