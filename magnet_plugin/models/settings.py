"""The settings of a MAGNeT: what `set_generation_params` takes, checks and keeps."""
import copy
import dataclasses
import typing as tp

from audiocraft.models.genmodel import BaseGenModel

from ..decoding.option_types import real
from ..decoding.options import GenerationOptions, PromptOptions, default_steps
from ..decoding.presets import preset_arguments
from ..decoding.rescoring import Rescorer
from ..decoding.rescoring_options import weight_of
from ..decoding.windows import AUTO, ORDERS, plan_windows
from .auxiliary import AuxiliaryModels, Source
from .generation import frames
from .lm_hybrid import HybridMagnetLMModel
from .prompt_models import PromptModel
from .stereo import check_parallel_channels, clip_frames

DEFAULT_STRIDE = 0.6        # of a window
MAX_DURATION = 24 * 3600.0  # seconds


Model = tp.TypeVar("Model", bound="ConfigurableModel")


class ConfigurableModel(BaseGenModel):
    """A model with MAGNeT's generation parameters.

    Args:
        rescorer: default rescorer, see `set_generation_params`.
        **kwargs: `name`, `compression_model`, `lm` and `max_duration`, the arguments of AudioCraft's `BaseGenModel`.
    """

    def __init__(self, rescorer: tp.Optional[Source] = None, **kwargs: tp.Any) -> None:
        super().__init__(**kwargs)
        self._auxiliary = AuxiliaryModels(self.compression_model, self.device)
        self._default_rescorer = rescorer
        self.set_generation_params()

    def set_generation_params(self, use_sampling: bool = GenerationOptions.use_sampling,
                              top_k: int = GenerationOptions.top_k, top_p: float = GenerationOptions.top_p,
                              temperature: float = GenerationOptions.temp,
                              max_cfg_coef: float = GenerationOptions.max_cfg_coef,
                              min_cfg_coef: float = GenerationOptions.min_cfg_coef,
                              decoding_steps: tp.Optional[tp.Sequence[int]] = None,
                              span_arrangement: str = GenerationOptions.span_arrangement,
                              span_scoring: str = GenerationOptions.span_scoring,
                              anneal_temp: bool = GenerationOptions.anneal_temp, duration: tp.Optional[float] = None, *,
                              rescorer: tp.Optional[Source] = None, rescorer_weight: tp.Optional[float] = None,
                              prompt_model: tp.Optional[Source] = None, prompt_duration: tp.Optional[float] = None,
                              prompt_cfg_coef: tp.Optional[float] = None, prompt_temperature: tp.Optional[float] = None,
                              prompt_top_k: tp.Optional[int] = None, extend_stride: tp.Optional[float] = None,
                              window_order: str = AUTO, **others: tp.Any) -> None:
        """Set generation parameters, see `GenerationOptions`. Those that are not given return to their defaults.

        Args:
            decoding_steps: number of steps of each codebook; 20 for the first and 10 for the others by default.
            duration: seconds to generate; by default the length that the model was trained on, which windows have too.
            rescorer: a model whose probabilities are mixed in: a name (hub, `//sig/SIG`, `//bundled/NAME`, a folder), or a
                MusicGen, AudioGen, MAGNeT or `LMModel`, with the same codec. Default: that of `get_pretrained`.
            rescorer_weight: w in w * p_MAGNeT + (1 - w) * p_rescorer; 1 uses only MAGNeT.
            prompt_model: an autoregressive model that generates the first `prompt_duration` seconds, given like a rescorer.
            prompt_duration: seconds at the clip's start that are generated autoregressively, by `prompt_model` or by a
                hybrid model itself, before the rest is filled in in parallel. Default: 1 s for hybrid models, at most half
                of the clip; 0 for others. If it equals `duration`, a hybrid model generates the whole clip autoregressively.
                With an audio prompt, a prompt model counts them from the start of the clip, a hybrid model from its end.
            prompt_cfg_coef, prompt_temperature, prompt_top_k: guidance and sampling of those seconds (the model's own).
            extend_stride: seconds from one window to the next (0.6 of a window).
            window_order: see `plan_windows`; `auto` is `alternate` for texts and short overlaps, else `forward`.
            **others: fields of `GenerationOptions` and `RescoringOptions`: engine, precision, guidance_interval,
                guidance_every, rescorer_stages, rescorer_every, rescorer_cfg_coef, rescorer_fill, ...
        Raises:
            ValueError: a value is invalid; the message names the setting and the remedy.
        """
        rescorer = self._default_rescorer if rescorer is None else rescorer
        steps = default_steps(self.lm.n_q) if decoding_steps is None else decoding_steps
        options = GenerationOptions.read({
            "use_sampling": use_sampling, "top_k": top_k, "top_p": top_p, "temp": temperature, "max_cfg_coef": max_cfg_coef,
            "min_cfg_coef": min_cfg_coef, "decoding_steps": steps, "span_arrangement": span_arrangement,
            "span_scoring": span_scoring, "anneal_temp": anneal_temp,
            "rescorer_weight": weight_of(rescorer_weight, rescorer), **others})
        options.check_codebooks(self.lm.n_q)
        duration, stride = self._check_duration(duration), self._check_windows(extend_stride, window_order)
        overrides = _given(cfg_coef=prompt_cfg_coef, temperature=prompt_temperature, top_k=prompt_top_k)
        hybrid, first_window = isinstance(self.lm, HybridMagnetLMModel), min(duration, self.max_duration)
        seconds = prompt_seconds(prompt_duration, first_window, hybrid, prompt_model is not None, bool(overrides))
        self._apply(options, rescorer, prompt_model, PromptOptions(frames(seconds, self.frame_rate), **overrides), overrides)
        self.duration, self.prompt_duration = duration, seconds
        self.extend_stride, self.window_order = stride, window_order

    def with_generation_params(self: Model, **params: tp.Any) -> Model:
        """Return this model with generation parameters of its own; weights and codec are shared.

        Threads that generate with one model under different parameters each use a model of their own.

        Args:
            **params: see `set_generation_params`.
        """
        model = copy.copy(self)
        model.set_generation_params(**params)
        return model

    def _check_duration(self, duration: tp.Optional[float]) -> float:
        if duration is None:
            return self.max_duration
        if not 0 < real("duration", duration) <= MAX_DURATION:
            raise ValueError(f"duration={duration} must be above 0 and at most {MAX_DURATION:g} s")
        if duration > self.max_duration:
            check_parallel_channels(self.compression_model, f"duration={duration:g} above {self.max_duration:g} s")
        return duration

    def _check_windows(self, stride: tp.Optional[float], order: str) -> float:
        stride = DEFAULT_STRIDE * self.max_duration if stride is None else real("extend_stride", stride)
        if order not in (AUTO, *ORDERS):
            raise ValueError(f"window_order={order!r} is unknown; choose one of {', '.join((AUTO, *ORDERS))}")
        plan_windows([], self.window_frames, self._overlap(stride), ORDERS[0] if order == AUTO else order)
        return stride

    @property
    def window_frames(self) -> int:
        """Frames of a window: the length that the model was trained on."""
        return clip_frames(self.max_duration, self.compression_model)

    def _overlap(self, stride: float) -> int:
        """Return by how many frames windows overlap that are `stride` seconds apart."""
        return self.window_frames - frames(stride, self.frame_rate)

    def set_preset(self, name: str) -> None:
        """Use a preset: the paper's settings for this model (`paper`), half (`fast`) or a quarter (`draft`) of their steps,
        the best ones known (`best`), those for filling in a recording (`edit`), or the paper's for `music-10s`, `music-30s`
        or `sound-10s`.

        All other settings return to their defaults: `rescorer`, `prompt_model` and `prompt_duration`, and `duration`, which
        the names of presets do not set.
        """
        self.set_generation_params(**self.preset_arguments(name))

    def preset_arguments(self, name: str) -> dict[str, tp.Any]:
        """Return a preset, see `set_preset`, as arguments of `set_generation_params`."""
        sound = getattr(self.lm, "cfg", {}).get("solver") == "audio_magnet"
        return preset_arguments(name, self.lm.n_q, self.max_duration, sound)

    def _apply(self, options: GenerationOptions, rescorer: tp.Optional[Source], prompt_model: tp.Optional[Source],
               prompt_options: PromptOptions, prompt_overrides: tp.Mapping[str, tp.Any]) -> None:
        """Load the auxiliary models, then apply the settings."""
        loaded = self._auxiliary.rescorer(rescorer, options.engine) if options.rescores and rescorer is not None else None
        model: tp.Optional[PromptModel] = None
        if prompt_model is not None:
            model = self._auxiliary.prompt_model(prompt_model, options.engine)
            changes = {{"temperature": "temp"}.get(name, name): value for name, value in prompt_overrides.items()}
            model = dataclasses.replace(model, params={**model.params, **changes})
        self._rescorer: tp.Optional[Rescorer] = loaded
        self._prompt_model = model
        self.prompt_params = prompt_options.plain() if isinstance(self.lm, HybridMagnetLMModel) and model is None else {}
        self.generation_params = options.plain()

    def _shorten(self) -> None:
        """Use one step per codebook and at most one autoregressive frame, with all other settings as they are."""
        self.generation_params = {**self.generation_params, "decoding_steps": [1] * self.lm.n_q}
        self.prompt_duration = min(self.prompt_duration, 1 / self.frame_rate)
        if self.prompt_params:
            self.prompt_params = {**self.prompt_params, "prompt_frames": frames(self.prompt_duration, self.frame_rate)}

    @property
    def rescorer_name(self) -> tp.Optional[str]:
        """Name of the rescorer in use, or None."""
        return None if self._rescorer is None else self._rescorer.name.removeprefix("rescorer ")

    @property
    def prompt_model_name(self) -> tp.Optional[str]:
        """Name of the prompt model in use, or None."""
        return None if self._prompt_model is None else self._prompt_model.name.removeprefix("prompt_model ")

    @property
    def options(self) -> GenerationOptions:
        """The decoding settings in use."""
        return GenerationOptions(**self.generation_params)


def _given(**values: tp.Any) -> dict[str, tp.Any]:
    return {name: value for name, value in values.items() if value is not None}


def settings(model: ConfigurableModel) -> dict[str, tp.Any]:
    """Return everything that a result depends on, except text and seed, as plain values for a JSON file."""
    return {"model": model.name, "duration": model.duration, "sample_rate": model.sample_rate,
            "frame_rate": float(model.frame_rate), "device": str(model.device), "span_len": model.lm.span_len,
            "subcodes_context": model.lm.subcodes_context, "rescorer": model.rescorer_name,
            "prompt_model": model.prompt_model_name, "prompt_duration": model.prompt_duration,
            "extend_stride": model.extend_stride, "window_order": model.window_order,
            **({} if model._prompt_model is None else {"prompt_options": dict(model._prompt_model.params)}),
            **dataclasses.asdict(model.options), **model.prompt_params}


def prompt_seconds(seconds: tp.Optional[float], duration: float, hybrid: bool, prompt_model: bool,
                   prompt_overrides: bool) -> float:
    """Return how many seconds of a clip are generated autoregressively.

    Args:
        seconds: `prompt_duration`; None means the default: 1 s, at most half of the clip, for a hybrid model without a
            prompt model, and 0 otherwise.
        duration: length of the clip in seconds.
        hybrid: whether the MAGNeT is a hybrid model.
        prompt_model: whether there is a prompt model.
        prompt_overrides: whether guidance or sampling of those seconds are set.
    Raises:
        ValueError: the settings do not fit together.
    """
    if seconds is None:
        seconds = min(1.0, duration / 2) if hybrid and not prompt_model else 0.0
    if not real("prompt_duration", seconds) >= 0:
        raise ValueError(f"prompt_duration={seconds} s must be at least 0 (0: decode the whole clip in parallel)")
    if seconds > duration:
        raise ValueError(f"prompt_duration={seconds} s exceeds duration={duration:g} s; lower prompt_duration or raise "
                         "duration")
    if prompt_model and seconds == duration:
        raise ValueError(f"prompt_duration={seconds} s is the whole clip, so that nothing is left to decode after "
                         f"prompt_model; set prompt_duration below duration={duration:g}")
    if seconds and not prompt_model and not hybrid:
        raise ValueError(f"prompt_duration={seconds} s needs a hybrid model, or prompt_model=, the autoregressive model "
                         "that generates those seconds")
    if prompt_model and not seconds:
        raise ValueError("prompt_model is given, but prompt_duration=0; set prompt_duration to the seconds that it "
                         "generates, or omit prompt_model")
    if prompt_overrides and not seconds:
        raise ValueError("prompt_cfg_coef, prompt_temperature and prompt_top_k only apply to seconds that are generated "
                         "autoregressively; set prompt_duration too")
    return seconds
