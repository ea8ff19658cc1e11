"""The shipped grids at both scales: what their jobs train, decode, evaluate and request."""
import functools
import pkgutil

import pytest

from magnet_plugin.decoding.options import default_steps
from magnet_plugin.sweeps import slurm

from ..helpers.grid_jobs import NAMES, SCALES, explore, jobs_of

DECODING = ["ablate_guidance", "ablate_hybrid", "ablate_rescorer", "ablate_sampling", "ablate_steps"]


def test_every_grid_of_audiocraft_has_a_namesake() -> None:
    import audiocraft.grids.magnet as upstream
    assert {module.name for module in pkgutil.iter_modules(upstream.__path__)} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", SCALES)
def test_the_settings_of_every_job_are_valid(scale: str, name: str) -> None:
    """The solvers accept the settings, ranks divide the batches, an array has one request, no job occurs twice."""
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
def test_both_scales_vary_the_same_settings(name: str) -> None:
    """The jobs differ in the same way; sizes and seconds belong to the scale."""
    def differences(scale: str) -> list[dict[str, str]]:
        jobs = [job.settings for array in jobs_of(scale, name) for job in array
                if name not in DECODING or "execute_only" in job.settings]
        shared = functools.reduce(lambda common, job: common & job.items(), jobs, jobs[0].items())
        return [{key: value for key, value in job.items() if (key, value) not in shared} for job in jobs]
    paper, tiny = differences("magnet"), differences("magnet.tiny")
    if name == "ablate_scale":
        assert [one["model_scale"] for one in paper] == ["small", "medium"] and len(tiny) == 2
    elif name == "ablate_hybrid":
        assert all(list(one) == ["hybrid.prompt.duration"] for one in (*paper, *tiny))
    else:
        assert paper == tiny


def test_the_span_grid_combines_every_length_with_both_contexts() -> None:
    for scale in SCALES:
        (jobs,) = jobs_of(scale, "ablate_span")
        assert {(job.cfg.transformer_lm.span_len, job.cfg.transformer_lm.subcodes_context) for job in jobs} == {
            (span, context) for span in (1, 2, 3, 4, 5, 10) for context in (5, -1)} and len(jobs) == 12


@pytest.mark.parametrize("name", DECODING)
@pytest.mark.parametrize("scale", SCALES)
def test_decoding_grids_train_one_model_and_evaluate_it(scale: str, name: str) -> None:
    (parent,), evaluations = jobs_of(scale, name)
    assert parent.cfg.execute_only is None
    for job in evaluations:
        assert (job.cfg.execute_only, job.cfg.continue_from) == ("evaluate", f"//sig/{parent.sig}")
        assert job.cfg.transformer_lm == parent.cfg.transformer_lm and job.cfg.solver == parent.cfg.solver
        assert any(job.cfg.evaluate.metrics.values())


def test_an_existing_model_can_be_evaluated_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, source in (("0a1b2c3d", "//sig/0a1b2c3d"), ("//bundled/magnet-16khz", "//bundled/magnet-16khz")):
        monkeypatch.setenv("MAGNET_GRID_PARENT", given)
        (jobs,) = explore("magnet.tiny.ablate_hybrid")
        assert {job.cfg.continue_from for job in jobs} == {source} and len(jobs) == 5


def test_published_models_are_evaluated_with_the_settings_of_their_training() -> None:
    names = ("magnet_pretrained_32khz_eval", "audio_magnet_pretrained_16khz_eval")
    (music,), (sound,) = (jobs_of("magnet", name) for name in names)
    seen = {job.cfg.continue_from: (job.cfg.transformer_lm.dim, job.cfg.dataset.segment_duration,
                                    (job.cfg.generate.lm.decoding_steps or default_steps(4))[0]) for job in (*music, *sound)}
    assert seen == {"//pretrained/facebook/magnet-small-10secs": (1024, 10, 20),
                    "//pretrained/facebook/magnet-medium-10secs": (1536, 10, 20),
                    "//pretrained/facebook/magnet-small-30secs": (1024, 30, 60),
                    "//pretrained/facebook/magnet-medium-30secs": (1536, 30, 60),
                    "//pretrained/facebook/audio-magnet-small": (1024, 10, 20),
                    "//pretrained/facebook/audio-magnet-medium": (1536, 10, 20)}
    assert all(job.cfg.evaluate.metrics.fad and job.cfg.execute_only == "evaluate" for job in (*music, *sound))


def test_training_grids_follow_the_published_recipes() -> None:
    small, medium = jobs_of("magnet", "magnet_32khz")
    for jobs, dim, gpus in ((small, 1024, 32), (medium, 1536, 64)):
        assert [(job.cfg.dataset.segment_duration, job.cfg.dataset.batch_size, job.cfg.transformer_lm.dim, job.slurm.gpus)
                for job in jobs] == [(10, 576, dim, gpus), (30, 192, dim, gpus)]
    assert {(job.cfg.optim.optimizer, job.cfg.fsdp.use) for job in small} == {("dadam", False)}
    assert {(job.cfg.optim.optimizer, job.cfg.optim.lr, job.cfg.fsdp.use) for job in medium} == {("adamw", 1e-4, True)}
    assert [array[0].cfg.fsdp.use for array in jobs_of("magnet", "audio_magnet_16khz")] == [False, True]


def test_command_line_and_environment_override_the_requests_of_a_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_GRID_PARENT", "0a1b2c3d")
    monkeypatch.setenv("MAGNET_SLURM_TIME", "7")
    requests = [job.slurm for array in explore("magnet.tiny.ablate_hybrid", mem_per_gpu=9) for job in array]
    assert {one.mem_per_gpu for one in requests} == {9}, "the command line"
    assert {one.time for one in requests} == {7}, "the environment"
    assert {one.array_parallelism for one in requests} == {2}, "the scale"


def test_overrides_are_added_to_every_job_and_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(SystemExit, match="set datasource.evaluate=FOLDER "):
        shepherd.get_sheep_from_argv(["solver=magnet/magnet_32khz", "execute_only=evaluate"])
