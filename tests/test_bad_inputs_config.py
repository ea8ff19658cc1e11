"""One table of bad config overrides: `dora run` refuses each in one line, before data or models are loaded."""
import typing as tp

import pytest

from .conftest import compose
from .helpers.bad_inputs import Bad, check_message, table
from .test_configs import DATA, LARGE, RUNNABLE

ROWS = [
    Bad("masking.span_len=0", "masking.span_len=0 must be a whole number of at least 1"),
    Bad("masking.span_len=2.5", "masking.span_len=2.5 must be a whole number"),
    Bad("masking.span_len=three", "masking.span_len=three must be a whole number"),
    Bad("masking.span_len=999", "masking.span_len=999 is longer than a clip of 250 frames; lower it"),
    Bad("dataset.batch_size=0", "dataset.batch_size=0 must be a whole number of at least 1"),
    Bad("dataset.batch_size=many", "dataset.batch_size=many must be a whole number"),
    Bad("dataset.segment_duration=nan", "dataset.segment_duration=nan must be a finite number above 0"),
    Bad("dataset.segment_duration=-5", "dataset.segment_duration=-5 must be a finite number above 0"),
    Bad("dataset.min_segment_ratio=2", "dataset.min_segment_ratio=2 must be a finite number of at least 0 and at most 1"),
    Bad("dataset.num_workers=-1", "dataset.num_workers=-1 must be a whole number of at least 0"),
    Bad("dataset.valid.num_samples=0", "dataset.valid.num_samples=0 must be a whole number of at least 1, or null"),
    Bad("optim.lr=nan", "optim.lr=nan must be a finite number above 0"),
    Bad("optim.lr=0", "optim.lr=0 must be a finite number above 0"),
    Bad("optim.lr=fast", "optim.lr=fast must be a finite number"),
    Bad("optim.epochs=0", "optim.epochs=0 must be a whole number of at least 1"),
    Bad("optim.epochs=1.5", "optim.epochs=1.5 must be a whole number"),
    Bad("optim.updates_per_epoch=-1", "optim.updates_per_epoch=-1 must be a whole number of at least 1"),
    Bad("optim.max_norm=inf", "optim.max_norm=inf must be a finite number of at least 0"),
    Bad("optim.adam.betas=[0.9,1]", "optim.adam.betas=[0.9, 1] must be two numbers from 0 to below 1"),
    Bad("optim.adam.betas=0.9", "optim.adam.betas=0.9 must be two numbers"),
    Bad("optim.ema.decay=1.1", "optim.ema.decay=1.1 must be a finite number of at least 0 and at most 1"),
    Bad("optim.ema.use=maybe", "optim.ema.use=maybe must be true or false"),
    Bad("optim.optimizer=sgd", "optim.optimizer=sgd is unknown; choose one of adam, adamw, dadam"),
    Bad("optim.accumulate=9", "optim.accumulate=9 must be between 1 and dataset.batch_size=8"),
    Bad("optim.accumulate=1.5", "optim.accumulate=1.5 must be between 1 and dataset.batch_size=8"),
    Bad("schedule.lr_scheduler=linear", "schedule.lr_scheduler=linear is unknown; choose one of null, step"),
    Bad("schedule.lr_scheduler=inverse_sqrt", "needs schedule.inverse_sqrt.warmup; set it to a number of updates"),
    Bad("schedule.cosine.warmup=-1", "schedule.cosine.warmup=-1 must be a whole number of at least 0"),
    Bad("schedule.cosine.lr_min_ratio=nan", "schedule.cosine.lr_min_ratio=nan must be a finite number"),
    Bad("autocast_dtype=float64", "autocast_dtype=float64 is unknown; choose one of float16, bfloat16"),
    Bad("generate.lm.top_p=2", "generate.lm: top_p=2 is outside [0, 1]"),
    Bad("generate.lm.temp=0", "generate.lm: temperature=0 (temp in configs) must be above 0"),
    Bad("generate.lm.max_cfg_coef=nan", "generate.lm: max_cfg_coef=nan must be a finite number"),
    Bad("generate.lm.decoding_steps=[20,10]", "but the model has 4 codebooks; give one number of steps per codebook"),
    Bad("generate.lm.decoding_steps=2111", "generate.lm: decoding_steps=2111 must be a list with one whole number"),
    Bad("generate.lm.engine=fast", "generate.lm: engine='fast' is unknown; choose one of auto, lean, plain"),
    Bad("generate.lm.engine=plain generate.lm.precision=int8", "precision=int8 needs engine=auto or engine=lean"),
    Bad("generate.lm.rescorer_weight=0.5", "generate.lm: rescorer_weight=0.5 needs a rescorer"),
    Bad("generate.lm.rescorer=x generate.lm.rescorer_weight=nan", "rescorer_weight=nan must be a finite number"),
    Bad("generate.lm.gen_duration=-1", "generate.lm.gen_duration=-1 must be a finite number above 0, or null"),
    Bad("generate.lm.prompted_samples=true generate.lm.prompt_duration=5",
        "generate.lm.prompt_duration=5 leaves nothing of 5 s to generate"),
    Bad("evaluate.metrics.frechet=1", "evaluate.metrics.frechet=1 must be true or false"),
    Bad("evaluate.fixed_generation_duration=0", "evaluate.fixed_generation_duration=0 must be a finite number above 0"),
    Bad("metrics.instruments.clips=0", "metrics.instruments.clips=0 must be a whole number of at least 1"),
    Bad("hybrid.switch=[0.9,0.1]", "hybrid.switch=[0.9, 0.1] must be the lowest and the highest"),
    Bad("hybrid.switch=[0,nan]", "hybrid.switch=[0, nan] must be two numbers from 0 to 1"),
    Bad("hybrid.switch=half", "hybrid.switch=half must be two numbers from 0 to 1"),
    Bad("hybrid.parallel=1.5", "hybrid.parallel=1.5 must be a finite number of at least 0 and at most 1"),
    Bad("hybrid.prompt.duration=nan", "hybrid.prompt.duration=nan must be a finite number"),
    Bad("hybrid.prompt.temperature=0", "hybrid.prompt: prompt_temperature=0 must be above 0"),
    Bad("fsdp.use=true optim.optimizer=dadam", "fsdp.use=true is incompatible with optim.optimizer=dadam"),
]


@table(ROWS)
def test_a_bad_override_is_refused_before_anything_is_loaded(inputs: str, words: str) -> None:
    """`check_start` is the first thing that `dora run` does with the config; it must not look for the experiment."""
    cfg = compose(f"solver={'magnet/hybrid' if 'hybrid' in inputs else 'magnet'}", *inputs.split())
    from magnet_plugin import train
    with pytest.raises(ValueError) as error:
        train.check_start(cfg)
    check_message(str(error.value), words)


@pytest.mark.parametrize("solver", [name for name in RUNNABLE if name.startswith("magnet")])
def test_no_shipped_config_is_refused(solver: str) -> None:
    from magnet_plugin.solvers.settings import check_settings
    check_settings(compose(f"solver={solver}", *(DATA if solver in LARGE else [])))


def test_a_bad_setting_ends_a_run_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point itself: no process group, no data and no solver."""
    from magnet_plugin import train
    said: list[str] = []

    def fatal(text: str) -> tp.NoReturn:
        said.append(text)
        raise SystemExit(1)
    monkeypatch.setattr(train, "fatal", fatal)
    for name in ("init_seed_and_system", "execute"):
        monkeypatch.setattr(train, name, lambda cfg: None)
    monkeypatch.setattr(train.flashy, "setup_logging", lambda **settings: None)
    monkeypatch.setattr(train.process_groups, "init", lambda *a, **k: pytest.fail("the error came too late"))
    run = train.main.main if hasattr(train.main, "main") else train.main
    with pytest.raises(SystemExit):
        run(compose("solver=magnet", "optim.lr=nan"))
    assert said == ["optim.lr=nan must be a finite number above 0"]
