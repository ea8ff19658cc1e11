"""GenerationOptions: how to decode. Frozen, validated where it is made, the only place with decoding defaults."""
import dataclasses
import typing as tp

from .rescoring_options import RescoringOptions

CHOICES = {
    "span_arrangement": ("stride1", "nonoverlap"),
    "span_scoring": ("max", "prod"),
    "engine": ("auto", "lean", "plain"),
    "precision": ("model", "bfloat16", "float16", "int8"),
}


@dataclasses.dataclass(frozen=True)
class GenerationOptions(RescoringOptions):
    """Settings of the iterative decoding (paper, sections 3 and 4; defaults are those of ten seconds of music).

    Attributes:
        use_sampling: sample tokens; False takes the most likely one.
        top_k: keep the k most likely tokens; 0 keeps all. `top_p` wins over it.
        top_p: keep the most likely tokens that together reach this probability; 0 switches it off.
        temp: softmax temperature at the start of each stage.
        anneal_temp: let the temperature fall linearly within a stage.
        max_cfg_coef: guidance coefficient while everything is masked.
        min_cfg_coef: guidance coefficient once nothing is masked any more.
        decoding_steps: steps of each stage, one number per codebook.
        span_arrangement: `stride1`, overlapping spans (the authors' better one), or `nonoverlap`, spans on a grid.
        span_scoring: how a `nonoverlap` span is scored: by its likeliest token (`max`) or by all of them (`prod`).
        engine: `auto`, the lean forward pass where it serves the model and the model's own elsewhere; `lean` or `plain`.
        precision: of the matrix products: `model`, as the weights are; `bfloat16`, `float16` (CUDA), or `int8` (CPU).
            Other than `model` is approximate, and wants the lean engine.
        guidance_interval: mask rates, from and to, between which there is guidance (arXiv 2404.07724). Approximate, and
            faster, where it is narrower than (0, 1): outside of it the null branch is not computed.
        guidance_every: compute the null branch in every so many steps, and take its difference to the conditional one
            from the last time in between. Approximate, and faster, where it is above 1.
        rescorer_…: see `RescoringOptions`.
    Raises:
        ValueError: a value that cannot work, named with its remedy.
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
    engine: str = "auto"
    precision: str = "model"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "decoding_steps", _steps(self.decoding_steps))
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is outside [0, 1]; give a probability such as 0.9, or 0 to switch it off")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k} is negative; give 0 to keep all tokens")
        if not self.temp > 0:
            raise ValueError(f"temperature={self.temp} must be above 0; use_sampling=False takes the most likely tokens")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}")
        if self.engine == "plain" and self.precision != "model":
            raise ValueError(f"precision={self.precision} wants engine=auto or lean; engine=plain knows the model's alone")
        for name in ("max_cfg_coef", "min_cfg_coef"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative; 1 means no guidance")
        object.__setattr__(self, "guidance_interval", _interval(self.guidance_interval))
        if self.guidance_every < 1:
            raise ValueError(f"guidance_every={self.guidance_every} must be at least 1; 1 computes every step")

    def check_codebooks(self, n_q: int) -> None:
        """Raise ValueError unless there is a number of steps for each of the model's `n_q` codebooks."""
        self.check_rescorer_stages(n_q)
        if len(self.decoding_steps) != n_q:
            raise ValueError(f"decoding_steps={list(self.decoding_steps)} has {len(self.decoding_steps)} entries, but the "
                             f"model has {n_q} codebooks; give one number of steps per codebook")

    def plain(self) -> dict[str, tp.Any]:
        """The settings as numbers, strings and lists, ready for JSON and for `lm.generate(**...)`."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()}


def _steps(values: tp.Iterable[int]) -> tuple[int, ...]:
    try:
        steps = tuple(int(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"decoding_steps={values!r} must be a list with one whole number per codebook, "
                         "such as [20, 10, 10, 10]") from None
    if not steps or min(steps) < 1:
        raise ValueError(f"decoding_steps={list(steps)}: every codebook needs at least 1 step")
    return steps


def _interval(values: tp.Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"guidance_interval={values!r} must be two mask rates, such as [0, 0.8]") from None
    if not 0 <= low <= high <= 1:
        raise ValueError(f"guidance_interval={[low, high]} must rise within [0, 1]")
    return low, high


@dataclasses.dataclass(frozen=True)
class PromptOptions:
    """Settings of what a hybrid model writes token by token, before it goes on in parallel; defaults are MusicGen's.

    Attributes:
        frames: number of frames to write; 0 decodes all of the clip in parallel.
        cfg_coef: guidance coefficient.
        temperature: softmax temperature.
        top_k: keep the k most likely tokens; 0 keeps all.
    Raises:
        ValueError: a value that cannot work, named with its remedy.
    """
    frames: int = 0
    cfg_coef: float = 3.0
    temperature: float = 1.0
    top_k: int = 250

    def __post_init__(self) -> None:
        if self.frames < 0:
            raise ValueError(f"prompt_duration: {self.frames} frames; give 0 s to decode all in parallel, or more")
        if self.cfg_coef < 0:
            raise ValueError(f"prompt_cfg_coef={self.cfg_coef} is negative; 1 means no guidance")
        if not self.temperature > 0:
            raise ValueError(f"prompt_temperature={self.temperature} must be above 0; use_sampling=False takes the most "
                             "likely tokens")
        if self.top_k < 0:
            raise ValueError(f"prompt_top_k={self.top_k} is negative; give 0 to keep all tokens")

    def plain(self) -> dict[str, tp.Any]:
        """The settings as arguments of `lm.generate(**...)`, ready for JSON."""
        return {f"prompt_{name}": value for name, value in dataclasses.asdict(self).items()}


PRESETS: dict[str, GenerationOptions] = {
    "music-10s": GenerationOptions(),
    "music-30s": GenerationOptions(decoding_steps=(60, 10, 10, 10)),
    "sound-10s": GenerationOptions(temp=3.5, top_p=0.8, max_cfg_coef=20.0),
}


def preset(name: str, **changes: tp.Any) -> GenerationOptions:
    """The paper's settings by name (`music-10s`, `music-30s`, `sound-10s`), with `changes` on top."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name], **changes)
