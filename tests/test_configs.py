"""Every config composes and builds."""
from pathlib import Path

import pytest

from .conftest import compose

CONFIG = Path(__file__).parents[1] / "config"
SOLVERS = sorted(str(path.relative_to(CONFIG / "solver").with_suffix("")) for path in (CONFIG / "solver").rglob("*.yaml"))
RUNNABLE = [name for name in SOLVERS if "default" not in name and "evaluation" not in name]
SCALES = sorted(path.stem for path in (CONFIG / "model_scale").glob("*.yaml"))
DATA = ["datasource.max_sample_rate=48000", "datasource.max_channels=2",
        *(f"datasource.{split}=egs/{split}" for split in ("train", "valid", "evaluate", "generate"))]
LARGE = {"magnet/magnet_32khz", "magnet/audio_magnet_16khz", "magnet/hybrid_32khz"}
PAPER = {"magnet/magnet_32khz": (1024, 24, 30, [60, 10, 10, 10]),
         "magnet/audio_magnet_16khz": (1024, 24, 10, [20, 10, 10, 10])}


def test_the_public_solver_configs_exist() -> None:
    assert set(RUNNABLE) >= {"magnet", "magnet/debug", "magnet/magnet_32khz", "magnet/audio_magnet_16khz",
                             "magnet/finetune", "magnet/finetune_cpu", "compression/tiny_16khz",
                             "musicgen/tiny_16khz", "magnet/hybrid", "magnet/hybrid_32khz"}


@pytest.mark.parametrize("solver", RUNNABLE)
def test_a_config_composes_and_its_models_are_built(solver: str) -> None:
    """The whole config resolves, and its models are built; without T5, and large ones at their smallest scale."""
    import omegaconf
    import torch
    from audiocraft.models import builders

    from magnet_plugin.models.builders import get_generation_options
    from magnet_plugin.models.conditions import embed, unconditional
    from magnet_plugin.models.lm_hybrid import HybridMagnetLMModel
    from magnet_plugin.models.lm_magnet import MagnetLMModel
    cfg = compose(f"solver={solver}", "device=cpu", *(DATA if solver in LARGE else []))
    omegaconf.OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if cfg.solver == "compression":
        codec = builders.get_compression_model(cfg)
        assert (codec.frame_rate, codec.num_codebooks, codec.sample_rate) == (50, 4, cfg.sample_rate)
        return
    small = [] if cfg.conditioners.description.model == "words" else ["conditioner=none", "model_scale=xsmall"]
    built = builders.get_lm_model(compose(f"solver={solver}", "device=cpu", *small, *(DATA if solver in LARGE else [])))
    if cfg.lm_model in ("transformer_lm_magnet", "transformer_lm_hybrid_magnet"):
        assert isinstance(built, MagnetLMModel)
        assert isinstance(built, HybridMagnetLMModel) == (cfg.solver == "hybrid_magnet")
        assert built.segment_frames == cfg.dataset.segment_duration * 50 and built.span_len == 3
        assert get_generation_options(cfg).span_arrangement == "stride1"
        with torch.no_grad():
            assert built.eval()(torch.zeros(1, 4, 9, dtype=torch.long), [],
                                embed(built, unconditional(built, 1), guided=False), stage=1).shape[1] == 4
    else:
        assert not isinstance(built, MagnetLMModel)


@pytest.mark.parametrize("group", ["conditioner", "dset"])
def test_all_choices_of_a_group_compose(group: str) -> None:
    import omegaconf
    for path in sorted((CONFIG / group).rglob("*.yaml")):
        if path.stem != "default":                # the groups' own bases
            name = path.relative_to(CONFIG / group).with_suffix("")
            cfg = compose("solver=magnet", f"{group}={name}")
            omegaconf.OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("solver", PAPER)
def test_recipes_have_the_settings_of_the_paper(solver: str) -> None:
    from magnet_plugin.models.builders import get_generation_options
    cfg = compose(f"solver={solver}", *DATA)
    dim, layers, seconds, steps = PAPER[solver]
    assert (cfg.transformer_lm.dim, cfg.transformer_lm.num_layers) == (dim, layers)
    assert cfg.dataset.segment_duration == seconds and list(get_generation_options(cfg).decoding_steps) == steps
    assert (cfg.transformer_lm.subcodes_context, cfg.masking.span_len, cfg.transformer_lm.card) == (5, 3, 2048)
    assert list(cfg.optim.adam.betas) == [0.9, 0.95] and cfg.optim.adam.weight_decay == 0.1 and cfg.optim.max_norm == 1.0
    music = solver == "magnet/magnet_32khz"
    assert (cfg.optim.optimizer, cfg.schedule.lr_scheduler) == (("dadam", "cosine") if music else ("adamw", "inverse_sqrt"))
    assert cfg.generate.lm.max_cfg_coef == (10 if music else 20)


def test_every_decoding_setting_can_be_set_in_a_config() -> None:
    """By the names of `GenerationOptions` and with its defaults; of rescoring, the model and its weight."""
    import dataclasses

    from magnet_plugin.decoding.options import GenerationOptions
    from magnet_plugin.models.builders import get_generation_options
    names = {field.name for field in dataclasses.fields(GenerationOptions) if not field.name.startswith("rescorer_")}
    assert names | {"rescorer", "rescorer_weight"} <= set(compose("solver=magnet").generate.lm)
    assert get_generation_options(compose("solver=magnet")) == GenerationOptions()
    changed = compose("solver=magnet", "generate.lm.precision=bfloat16", "generate.lm.guidance_interval=[0,0.8]")
    assert get_generation_options(compose("solver=magnet", "transformer_lm.n_q=6")).decoding_steps == (20, *[10] * 5)
    assert get_generation_options(changed) == GenerationOptions(precision="bfloat16", guidance_interval=(0, 0.8))


@pytest.mark.parametrize("hybrid,base", [("magnet/hybrid", "magnet"), ("magnet/hybrid_32khz", "magnet/magnet_32khz")])
def test_a_hybrid_config_only_differs_from_its_base_in_the_hybrid_settings(hybrid: str, base: str) -> None:
    one, two = compose(f"solver={hybrid}", *DATA), compose(f"solver={base}", *DATA)
    assert {key for key in one if one[key] != two.get(key)} == {"solver", "lm_model", "codebooks_pattern", "hybrid"}
    assert one.codebooks_pattern.modeling == "delay" and list(one.codebooks_pattern.delay.delays) == [0, 1, 2, 3]
    assert list(one.hybrid.switch) == [0, 1]


@pytest.mark.parametrize("scale", SCALES)
def test_model_scale_can_be_set_by_both_names(scale: str) -> None:
    short = compose("solver=magnet", f"model_scale={scale}").transformer_lm
    assert short == compose("solver=magnet", f"model/lm/model_scale={scale}").transformer_lm


def test_solver_magnet_only_differs_from_the_papers_recipe_in_its_size() -> None:
    tiny, paper = compose("solver=magnet").transformer_lm, compose("solver=magnet/magnet_32khz", *DATA).transformer_lm
    differs = {key for key in paper if tiny.get(key) != paper[key]}
    assert differs == {"dim", "num_heads", "num_layers", "card", "memory_efficient", "custom", "segment_duration"}


def test_all_settings_that_do_not_fit_the_codec_are_named_at_once(release_folder: Path) -> None:
    from magnet_plugin.models.builders import codec_mismatches
    from magnet_plugin.models.loaders import load_codec
    cfg = compose("solver=magnet", "sample_rate=32000", "transformer_lm.n_q=8")
    found = codec_mismatches(cfg, load_codec(release_folder))
    assert len(found) == 3
    for name, value in (("sample_rate", 16000), ("transformer_lm.n_q", 4), ("transformer_lm.card", 64)):
        assert any(f"set {name}={value}" in line for line in found), found


def test_the_output_of_a_scan_is_one_setting() -> None:
    from magnet_plugin.train import per_rank
    cfg = compose("solver=magnet/finetune_cpu", "datasource.scan=egs/mine", "datasource.valid=other")
    sources = per_rank(cfg).datasource
    assert [sources[name] for name in ("train", "valid", "generate")] == \
        [str(Path(name).absolute()) for name in ("egs/mine/egs/train", "other", "egs/mine/egs/generate")]
    assert sources.scan is None, "AudioCraft would take it for a split"
    assert compose("solver=magnet/finetune").datasource.train is None


def test_check_assumes_what_the_recipe_for_fine_tuning_sets() -> None:
    from magnet_plugin.data.check import Target
    cfg = compose("solver=magnet/finetune", "datasource.scan=egs/mine")
    assert Target() == Target(cfg.dataset.segment_duration, cfg.sample_rate, cfg.channels, cfg.dataset.batch_size,
                              cfg.dataset.min_segment_ratio)
