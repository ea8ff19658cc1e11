"""GenerationOptions and PromptOptions: all decoding settings, checked where they are made.

The defaults of these classes are the only ones: the API, the command line and the configs read their defaults from here.
Importing this module loads nothing heavy.
"""
import dataclasses
import typing as tp

from .option_types import check_names, check_types, real, whole
from .rescoring_options import RescoringOptions

MAX_STEPS = 10_000      # of a codebook

CHOICES = {
    "span_arrangement": ("stride1", "nonoverlap"),
    "span_scoring": ("max", "prod"),
    "span_order": ("confidence", "halton"),
    "engine": ("auto", "lean", "plain"),
    "upper_codebooks": ("shown", "hidden"),
    "text_padding": ("masked", "attended"),
    "precision": ("model", "bfloat16", "float16", "float8", "int8"),
}


@dataclasses.dataclass(frozen=True)
class GenerationOptions(RescoringOptions):
    """Settings of MAGNeT's decoding (sections 3 and 4 of the paper). The defaults are those for ten seconds of music.

    Attributes:
        use_sampling: sample tokens; False chooses the most likely ones.
        top_k: sample from the k most likely tokens; 0 uses all of them. Ignored if `top_p` is set.
        top_p: sample from the most likely tokens that together reach this probability; 0 disables it.
        temp: softmax temperature at the start of each stage.
        anneal_temp: lower the temperature linearly within a stage.
        max_cfg_coef: guidance scale when everything is masked.
        min_cfg_coef: guidance scale when nothing is masked.
        decoding_steps: number of decoding steps of each codebook.
        span_arrangement: `stride1` for overlapping spans, which the paper's first author recommends, or `nonoverlap` for
            spans on a fixed grid.
        span_scoring: score of a `nonoverlap` span: by its most likely token (`max`) or by all of its tokens (`prod`).
        span_order: which spans are filled in first: those of which the model is certain, while the others are masked again
            (`confidence`, the paper's method), or those of a fixed order that spreads them evenly, in which nothing is
            masked again (`halton`, after arXiv 2503.17076). A fixed order has spans on a grid, whatever `span_arrangement`
            says, and needs a lower temperature, because it does not reject unlikely tokens.
        engine: forward pass used for decoding: `lean`, the fast path; `plain`, the reference path, which is the model's own
            forward pass; `auto`, the fast path where it supports the model.
        precision: dtype of the linear layers: `model`, that of the weights; `bfloat16`, `float16` (CUDA), `float8` (CUDA,
            compute capability 8.9 or higher) or `int8` (CPU). Values other than `model` are approximate and need the fast
            path.
        guidance_interval: lowest and highest mask rate at which guidance is applied (arXiv 2404.07724). An interval narrower
            than (0, 1) is approximate and faster, because the unconditional branch is not computed outside of it.
        guidance_every: compute the unconditional branch in every n-th step and reuse its difference to the conditional
            branch in between. Values above 1 are approximate and faster.
        upper_codebooks: whether known tokens of the codebooks above the one that is being decoded are `shown` to the
            model, as AudioCraft does with a prompt, or `hidden` from it, as they are in training.
        text_padding: what happens to shorter texts in a batch: `masked` hides their padding, so that a text gives the same
            alone and in a batch; `attended` is AudioCraft's behaviour, in which padding takes part in cross-attention.
        rescorer_...: see `RescoringOptions`.
    Raises:
        ValueError: a value is invalid; the message names the setting and the remedy.
    """
    use_sampling: bool = True
    top_k: int = 0
    top_p: float = 0.9
    temp: float = 3.0
    anneal_temp: bool = True
    max_cfg_coef: float = 10.0
    min_cfg_coef: float = 1.0
    decoding_steps: tuple[int, ...] = (20, 10, 10, 10)
    span_arrangement: str = "stride1"
    span_scoring: str = "max"
    span_order: str = "confidence"
    engine: str = "auto"
    precision: str = "model"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_every: int = 1
    upper_codebooks: str = "shown"
    text_padding: str = "masked"

    def __post_init__(self) -> None:
        check_types(self)
        super().__post_init__()
        object.__setattr__(self, "decoding_steps", _steps(self.decoding_steps))
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is outside [0, 1]; set a probability such as 0.9, or 0 to disable it")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k} must be at least 0 (0: all tokens)")
        if not self.temp > 0:
            raise ValueError(f"temperature={self.temp} (temp in configs) must be above 0; for the most likely tokens, set "
                             "use_sampling=False")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}")
        if self.engine == "plain" and self.precision != "model":
            raise ValueError(f"precision={self.precision} needs engine=auto or engine=lean; engine=plain only supports "
                             "precision=model")
        for name in ("max_cfg_coef", "min_cfg_coef"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0 (1: no guidance)")
        object.__setattr__(self, "guidance_interval", _interval(self.guidance_interval))
        if self.guidance_every < 1:
            raise ValueError(f"guidance_every={self.guidance_every} must be at least 1; 1 computes the unconditional "
                             "branch in every step")

    @property
    def fixed_order(self) -> bool:
        """Whether spans are filled in in an order that does not depend on how certain the model is."""
        return self.span_order != "confidence"

    @staticmethod
    def read(options: tp.Mapping[str, tp.Any]) -> "GenerationOptions":
        """Build options from keyword arguments.

        Raises:
            ValueError: a value is invalid, or there is no such setting.
        """
        check_names(options, (field.name for field in dataclasses.fields(GenerationOptions)))
        return GenerationOptions(**options)

    def check_codebooks(self, n_q: int) -> None:
        """Raise ValueError unless the settings fit a model with `n_q` codebooks."""
        self.check_rescorer_stages(n_q)
        if len(self.decoding_steps) != n_q:
            raise ValueError(f"decoding_steps={list(self.decoding_steps)} has {len(self.decoding_steps)} entries, but the "
                             f"model has {n_q} codebooks; give one number of steps per codebook")

    def plain(self) -> dict[str, tp.Any]:
        """The settings as numbers, strings and lists, for JSON and for `lm.generate(**...)`."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()}


def _steps(values: tp.Iterable[int]) -> tuple[int, ...]:
    try:
        steps = tuple(whole("decoding_steps", value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"decoding_steps={values!r} must be a list with one whole number per codebook, "
                         "such as [20, 10, 10, 10]") from None
    if not steps or min(steps) < 1 or max(steps) > MAX_STEPS:
        raise ValueError(f"decoding_steps={list(steps)}: every codebook needs 1 to {MAX_STEPS} steps")
    return steps


def _interval(values: tp.Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (real("guidance_interval", value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"guidance_interval={values!r} must be two mask rates, such as [0, 0.8]") from None
    if not 0 <= low <= high <= 1:
        raise ValueError(f"guidance_interval={[low, high]} must satisfy 0 <= low <= high <= 1")
    return low, high


@dataclasses.dataclass(frozen=True)
class PromptOptions:
    """Settings of the frames that a hybrid model decodes autoregressively at the start of a clip. Defaults as MusicGen's.

    Attributes:
        frames: number of frames; 0 decodes the whole clip in parallel.
        cfg_coef: guidance scale.
        temperature: softmax temperature.
        top_k: sample from the k most likely tokens; 0 uses all of them.
    Raises:
        ValueError: a value is invalid; the message names the setting and the remedy.
    """
    frames: int = 0
    cfg_coef: float = 3.0
    temperature: float = 1.0
    top_k: int = 250

    def __post_init__(self) -> None:
        check_types(self)
        if self.frames < 0:
            raise ValueError(f"prompt_duration={self.frames} frames must be at least 0 (0: decode everything in parallel)")
        if self.cfg_coef < 0:
            raise ValueError(f"prompt_cfg_coef={self.cfg_coef} must be at least 0 (1: no guidance)")
        if not self.temperature > 0:
            raise ValueError(f"prompt_temperature={self.temperature} must be above 0; for the most likely tokens, set "
                             "use_sampling=False")
        if self.top_k < 0:
            raise ValueError(f"prompt_top_k={self.top_k} must be at least 0 (0: all tokens)")

    def plain(self) -> dict[str, tp.Any]:
        """The settings as arguments of `HybridMagnetLMModel.generate(**...)`, for JSON too."""
        return {f"prompt_{name}": value for name, value in dataclasses.asdict(self).items()}


def default_steps(n_q: int) -> tuple[int, ...]:
    """Decoding steps of each of `n_q` codebooks: the default of the first one, and of the later ones."""
    first, later = GenerationOptions.decoding_steps[:2]
    return (first,) + (later,) * (n_q - 1)


PRESETS: dict[str, GenerationOptions] = {
    "music-10s": GenerationOptions(),
    "music-30s": GenerationOptions(decoding_steps=(60, 10, 10, 10)),
    "sound-10s": GenerationOptions(temp=3.5, top_p=0.8, max_cfg_coef=20.0),
}


def preset(name: str, **changes: tp.Any) -> GenerationOptions:
    """Return the paper's settings by name (`music-10s`, `music-30s` or `sound-10s`), with some fields changed.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name], **changes)
