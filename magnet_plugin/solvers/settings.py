"""Checks of a training's settings before data or models are loaded."""
import typing as tp

from omegaconf import DictConfig, OmegaConf

from ..data.manifests import SPLITS
from ..decoding.option_types import real, whole
from ..models import builders
from ..modules.hybrid_targets import check_switch


class Bound(tp.NamedTuple):
    """What a number must be: at least `lowest`, or above it, and at most `highest`."""
    lowest: float
    highest: float = float("inf")
    above: bool = False
    whole: bool = True
    optional: bool = False

    def describe(self) -> str:
        """Say it in words."""
        kind = "a whole number" if self.whole else "a finite number"
        low = f"{'above' if self.above else 'of at least'} {self.lowest:g}"
        return f"{kind} {low}{'' if self.highest == float('inf') else f' and at most {self.highest:g}'}" + (
            ", or null" if self.optional else "")

    def allows(self, name: str, value: tp.Any) -> bool:
        """Whether a value is such a number."""
        if value is None:
            return self.optional
        try:
            number = (whole if self.whole else real)(name, value)
        except ValueError:
            return False
        return (number > self.lowest if self.above else number >= self.lowest) and number <= self.highest


COUNT, OPTIONAL_COUNT = Bound(1), Bound(1, optional=True)
POSITIVE, OPTIONAL_POSITIVE = Bound(0, above=True, whole=False), Bound(0, above=True, whole=False, optional=True)
SHARE, WARMUP = Bound(0, 1, whole=False), Bound(0, optional=True)
#: Numbers that every solver of the plugin needs; those that a config lacks are not checked.
NUMBERS: dict[str, Bound] = {
    "masking.span_len": COUNT, "num_threads": COUNT,
    "dataset.batch_size": COUNT, "dataset.segment_duration": POSITIVE, "dataset.min_segment_ratio": SHARE,
    "dataset.num_workers": Bound(0),
    **{f"dataset.{split}.{name}": OPTIONAL_COUNT for split in SPLITS for name in ("num_samples", "batch_size")},
    "optim.epochs": COUNT, "optim.updates_per_epoch": OPTIONAL_COUNT, "optim.lr": POSITIVE,
    "optim.max_norm": Bound(0, whole=False, optional=True), "optim.adam.weight_decay": Bound(0, whole=False),
    "optim.adam.eps": POSITIVE, "optim.ema.updates": COUNT, "optim.ema.decay": SHARE,
    **{f"schedule.{name}.warmup": WARMUP for name in ("cosine", "inverse_sqrt", "linear_warmup", "polynomial_decay")},
    "schedule.cosine.lr_min_ratio": SHARE, "schedule.cosine.cycle_length": POSITIVE,
    "generate.every": WARMUP, "evaluate.every": WARMUP,
    "generate.lm.gen_duration": OPTIONAL_POSITIVE, "generate.lm.prompt_duration": OPTIONAL_POSITIVE,
    "evaluate.fixed_generation_duration": OPTIONAL_POSITIVE, "metrics.instruments.clips": COUNT,
    "hybrid.parallel": SHARE, "hybrid.prompt.duration": Bound(0, whole=False)}
SWITCHES = ("optim.ema.use", "fsdp.use", "autocast", "generate.lm.prompted_samples", "generate.lm.unprompted_samples",
            "evaluate.metrics.frechet", "evaluate.metrics.instruments")
CHOICES: dict[str, tuple[tp.Optional[str], ...]] = {
    "optim.optimizer": ("adam", "adamw", "dadam"), "autocast_dtype": ("float16", "bfloat16"),
    "schedule.lr_scheduler": (None, "step", "exponential", "cosine", "polynomial_decay", "inverse_sqrt", "linear_warmup")}


def check_settings(cfg: DictConfig) -> None:
    """Check the settings of a training with one of the plugin's solvers.

    Raises:
        ValueError: a setting has a wrong type or is out of range, or settings contradict each other.
    """
    for key, bound in NUMBERS.items():
        value = OmegaConf.select(cfg, key, default=_ABSENT)
        if value is not _ABSENT and not bound.allows(key, value):
            raise ValueError(f"{key}={value} must be {bound.describe()}")
    for key in SWITCHES:
        value = OmegaConf.select(cfg, key, default=False)
        if not isinstance(value, bool):
            raise ValueError(f"{key}={value} must be true or false")
    for key, choices in CHOICES.items():
        value = OmegaConf.select(cfg, key)
        if value not in choices:
            raise ValueError(f"{key}={value} is unknown; choose one of "
                             + ", ".join("null" if choice is None else choice for choice in choices))
    _check_pairs(cfg)
    check_accumulate(cfg)
    try:
        builders.get_generation_options(cfg).check_codebooks(cfg.transformer_lm.n_q)
    except ValueError as error:
        raise ValueError(f"generate.lm: {error}") from None
    builders.get_sharding(cfg)
    if builders.is_hybrid(cfg):
        _check_hybrid(cfg)


_ABSENT = object()


def _check_pairs(cfg: DictConfig) -> None:
    """Check settings that depend on each other."""
    betas = cfg.optim.adam.betas
    if not (OmegaConf.is_list(betas) and len(betas) == 2 and all(SHARE.allows("", beta) and beta < 1 for beta in betas)):
        raise ValueError(f"optim.adam.betas={betas} must be two numbers from 0 to below 1, such as [0.9,0.95]")
    name = cfg.schedule.lr_scheduler
    if name is not None and OmegaConf.select(cfg, f"schedule.{name}.warmup", default=0) is None:
        raise ValueError(f"schedule.lr_scheduler={name} needs schedule.{name}.warmup; set it to a number of updates")
    if cfg.optim.updates_per_epoch is None and name is not None and cfg.dataset.train.num_samples is None:
        raise ValueError("optim.updates_per_epoch=null needs dataset.train.num_samples; set one of them")
    frames = int(cfg.dataset.segment_duration * cfg.transformer_lm.compression_model_framerate)
    if cfg.masking.span_len > frames:
        raise ValueError(f"masking.span_len={cfg.masking.span_len} is longer than a clip of {frames} frames; lower it, or "
                         f"raise dataset.segment_duration={cfg.dataset.segment_duration}")
    lm = cfg.generate.lm
    length = lm.gen_duration or cfg.dataset.segment_duration
    if lm.prompted_samples and lm.prompt_duration is not None and lm.prompt_duration >= length:
        raise ValueError(f"generate.lm.prompt_duration={lm.prompt_duration} leaves nothing of {length} s to generate; lower "
                         "it, or raise generate.lm.gen_duration")


def _check_hybrid(cfg: DictConfig) -> None:
    """Check the settings of a hybrid model."""
    switch = cfg.hybrid.switch
    if not OmegaConf.is_list(switch) or not all(SHARE.allows("", value) for value in switch):
        raise ValueError(f"hybrid.switch={switch} must be two numbers from 0 to 1, such as [0.0, 1.0]")
    check_switch(switch, cfg.hybrid.parallel)
    try:
        builders.get_prompt_options(cfg)
    except ValueError as error:
        raise ValueError(f"hybrid.prompt: {error}") from None


def check_accumulate(cfg: DictConfig) -> None:
    """Raise ValueError unless each micro-batch of `optim.accumulate` has a clip."""
    setting, clips = training_batch(cfg)
    if not Bound(1, clips).allows("", cfg.optim.accumulate):
        raise ValueError(f"optim.accumulate={cfg.optim.accumulate} must be between 1 and {setting}={clips}, the number "
                         "of clips per rank: each micro-batch needs a clip")


def training_batch(cfg: DictConfig) -> tuple[str, int]:
    """Return the setting that decides the number of clips of a training batch, and the number.

    As in AudioCraft, the setting of the split comes before that of all splits, but cached tokens only know the latter.
    """
    own = cfg.dataset.get("train", {}).get("batch_size")
    cached = cfg.cache.path and not cfg.cache.write
    return ("dataset.batch_size", cfg.dataset.batch_size) if own is None or cached else ("dataset.train.batch_size", own)
