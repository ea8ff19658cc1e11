"""MAGNeT: load a model by name and generate. Replaces AudioCraft's `audiocraft.models.MAGNeT`."""
import dataclasses
import typing as tp

import torch
from audiocraft.data.audio_utils import convert_audio
from audiocraft.models.genmodel import BaseGenModel
from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding.options import GenerationOptions, PromptOptions, default_steps, preset
from ..decoding.rescoring import Rescorer
from ..decoding.rescoring_options import weight_of
from ..environment import default_device
from .auxiliary import AuxiliaryModels, Source
from .generation import frames
from .lm_hybrid import HybridMagnetLMModel
from .loaders import load_codec, load_magnet_lm
from .progress import Progress
from .prompt_models import PromptModel, prompt_seconds

Audio = torch.Tensor
AudioAndTokens = tuple[torch.Tensor, torch.Tensor]


class MAGNeT(BaseGenModel):
    """Text to music or sound by masked parallel decoding (arXiv 2401.04577).

    >>> model = MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu")
    >>> wav = model.generate(["a fast reel in D major played on the violin"], seed=1)
    >>> wav.shape                               # [B, channels, samples]
    torch.Size([1, 1, 80000])

    Args:
        rescorer: default rescorer, see `set_generation_params`.
        **kwargs: `name`, `compression_model`, `lm` and `max_duration`, the arguments of AudioCraft's `BaseGenModel`.
    """

    def __init__(self, rescorer: tp.Optional[Source] = None, **kwargs: tp.Any) -> None:
        super().__init__(**kwargs)
        self._auxiliary = AuxiliaryModels(self.compression_model, self.device)
        self._default_rescorer = rescorer
        self.set_generation_params()

    @staticmethod
    def get_pretrained(name: str = "facebook/magnet-small-10secs",
                       device: tp.Union[str, torch.device, None] = None,
                       rescorer: tp.Optional[Source] = None) -> "MAGNeT":
        """Load a model.

        Args:
            name: `//bundled/NAME`, a Dora signature `//sig/SIG`, a release folder, a training checkpoint, or one of the
                published models: facebook/magnet-{small,medium}-{10secs,30secs} (music) and
                facebook/audio-magnet-{small,medium} (sound).
            device: device of the model. Default: CUDA if available, else CPU.
            rescorer: the model's default rescorer, see `set_generation_params`.
        Raises:
            ValueError: nothing is found under this name, or it is not a MAGNeT whose weights fit its config.
        """
        device = device or default_device()
        codec = load_codec(name, device)
        lm = load_magnet_lm(name, codec.frame_rate, device)
        return MAGNeT(name=str(name), compression_model=codec, lm=lm, rescorer=rescorer)

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
                              prompt_top_k: tp.Optional[int] = None, **others: tp.Any) -> None:
        """Set generation parameters, see `GenerationOptions`. Those that are not given return to their defaults.

        Args:
            decoding_steps: number of steps of each codebook; 20 for the first and 10 for the others by default.
            duration: length to generate in seconds. Default and maximum: the length that the model was trained on.
            rescorer: a model whose probabilities are mixed in: a name (hub, `//sig/SIG`, `//bundled/NAME`, a folder), or a
                MusicGen, AudioGen, MAGNeT or `LMModel`, with the same codec. Default: that of `get_pretrained`.
            rescorer_weight: w in w * p_MAGNeT + (1 - w) * p_rescorer; 1 uses only MAGNeT.
            prompt_model: an autoregressive model that generates the first `prompt_duration` seconds, given like a rescorer.
            prompt_duration: seconds at the clip's start that are generated autoregressively, by `prompt_model` or by a
                hybrid model itself, before the rest is filled in in parallel. Default: 1 s for hybrid models, at most half
                of the clip; 0 for others. If it equals `duration`, a hybrid model generates the whole clip autoregressively.
                In `generate_continuation`, a prompt model counts these seconds from the start of the clip, so they include
                the caller's prompt; a hybrid model counts them from the end of the caller's prompt.
            prompt_cfg_coef, prompt_temperature, prompt_top_k: guidance scale and sampling of those seconds; by default
                those of the model that generates them.
            **others: fields of `GenerationOptions` and `RescoringOptions`: engine, precision, guidance_interval,
                guidance_every, rescorer_stages, rescorer_every, rescorer_cfg_coef, rescorer_fill, ...
        Raises:
            ValueError: a value is invalid; the message names the setting and the remedy.
        """
        rescorer = self._default_rescorer if rescorer is None else rescorer
        steps = default_steps(self.lm.n_q) if decoding_steps is None else decoding_steps
        options = GenerationOptions(use_sampling=use_sampling, top_k=top_k, top_p=top_p, temp=temperature,
                                    max_cfg_coef=max_cfg_coef, min_cfg_coef=min_cfg_coef,
                                    decoding_steps=steps,   # type: ignore[arg-type]
                                    span_arrangement=span_arrangement, span_scoring=span_scoring,
                                    anneal_temp=anneal_temp, rescorer_weight=weight_of(rescorer_weight, rescorer), **others)
        options.check_codebooks(self.lm.n_q)
        duration = self._check_duration(duration)
        prompt_overrides = {"cfg_coef": prompt_cfg_coef, "temperature": prompt_temperature, "top_k": prompt_top_k}
        prompt_overrides = {name: value for name, value in prompt_overrides.items() if value is not None}
        hybrid = isinstance(self.lm, HybridMagnetLMModel)
        seconds = prompt_seconds(prompt_duration, duration, hybrid, prompt_model is not None, bool(prompt_overrides))
        prompt_options = PromptOptions(frames(seconds, self.frame_rate), **prompt_overrides)        # type: ignore[arg-type]
        self._apply(options, rescorer, prompt_model, prompt_options, prompt_overrides)
        self.duration, self.prompt_duration = duration, seconds

    def _check_duration(self, duration: tp.Optional[float]) -> float:
        if duration is None:
            return self.max_duration
        if not 0 < duration <= self.max_duration:
            raise ValueError(f"duration={duration} must be in (0, {self.max_duration:g}] s; {self.max_duration:g} s is the "
                             "length the model was trained on")
        return duration

    def set_preset(self, name: str) -> None:
        """Use the paper's decoding settings: `music-10s`, `music-30s` or `sound-10s`.

        All other settings return to their defaults: `rescorer`, `prompt_model` and `prompt_duration`, and `duration`, which
        the names of presets do not set.
        """
        settings = preset(name).plain()
        del settings["rescorer_weight"]             # Depends on whether there is a default rescorer.
        self.set_generation_params(temperature=settings.pop("temp"), **settings)

    def _apply(self, options: GenerationOptions, rescorer: tp.Optional[Source], prompt_model: tp.Optional[Source],
               prompt_options: PromptOptions, prompt_overrides: tp.Mapping[str, tp.Any]) -> None:
        """Load the auxiliary models, then apply the settings."""
        loaded = self._auxiliary.rescorer(rescorer) if options.rescores and rescorer is not None else None
        model: tp.Optional[PromptModel] = None
        if prompt_model is not None:
            model = self._auxiliary.prompt_model(prompt_model)
            changes = {{"temperature": "temp"}.get(name, name): value for name, value in prompt_overrides.items()}
            model = dataclasses.replace(model, params={**model.params, **changes})
        self._rescorer: tp.Optional[Rescorer] = loaded
        self._prompt_model = model
        self.prompt_params = prompt_options.plain() if isinstance(self.lm, HybridMagnetLMModel) and model is None else {}
        self.generation_params = options.plain()

    def generate(self, descriptions: tp.Sequence[tp.Optional[str]], progress: bool = False, return_tokens: bool = False,
                 *, seed: tp.Optional[int] = None) -> tp.Union[Audio, AudioAndTokens]:
        """Generate from text.

        Args:
            descriptions: one text per sample.
            progress: show a progress bar.
            return_tokens: return the tokens too.
            seed: the same seed gives the same audio on the same device.
        Returns:
            Audio [B, channels, samples]; with `return_tokens` also tokens [B, K, T].
        """
        if isinstance(descriptions, str):
            raise ValueError("descriptions must be a list of texts, not one text; pass [text]")
        if not descriptions:
            raise ValueError("descriptions is empty; pass at least one text, or call generate_unconditional(num_samples)")
        return self._run(list(descriptions), None, progress, return_tokens, seed)

    def generate_unconditional(self, num_samples: int, progress: bool = False, return_tokens: bool = False, *,
                               seed: tp.Optional[int] = None) -> tp.Union[Audio, AudioAndTokens]:
        """Generate `num_samples` clips without a text; the result is like that of `generate`."""
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples} must be at least 1")
        return self._run([None] * num_samples, None, progress, return_tokens, seed)

    def generate_continuation(self, prompt: torch.Tensor, prompt_sample_rate: int,
                              descriptions: tp.Optional[tp.Sequence[tp.Optional[str]]] = None, progress: bool = False,
                              return_tokens: bool = False, *, seed: tp.Optional[int] = None
                              ) -> tp.Union[Audio, AudioAndTokens]:
        """Continue audio up to `duration`.

        Args:
            prompt: waveforms [B, C, samples], or [C, samples] for one.
            prompt_sample_rate: their sample rate in Hz.
            descriptions: one text per sample; None generates without a text.
        Raises:
            ValueError: shape, channels or length of the prompt are invalid.
        """
        prompt = prompt[None] if prompt.dim() == 2 else prompt
        if prompt.dim() != 3 or not prompt.numel():
            raise ValueError(f"prompt must be [B, C, samples] and be non-empty, got {list(prompt.shape)}")
        if prompt.shape[1] not in (1, 2, self.audio_channels):
            raise ValueError(f"prompt has {prompt.shape[1]} channels; give 1, 2 or the codec's {self.audio_channels}, "
                             "shaped [B, C, samples]")
        descriptions = [None] * len(prompt) if descriptions is None else list(descriptions)
        if len(descriptions) != len(prompt):
            raise ValueError(f"{len(descriptions)} descriptions for {len(prompt)} prompts; give one per prompt")
        seconds = prompt.shape[-1] / prompt_sample_rate
        if seconds >= self.duration:
            raise ValueError(f"the prompt lasts {seconds:.2f} s, but duration is {self.duration:g} s; cut the prompt or "
                             "raise duration in set_generation_params")
        prompt = convert_audio(prompt, prompt_sample_rate, self.sample_rate, self.audio_channels)
        return self._run(descriptions, prompt, progress, return_tokens, seed)

    def _run(self, descriptions: list[tp.Optional[str]], prompt: tp.Optional[torch.Tensor], progress: bool,
             return_tokens: bool, seed: tp.Optional[int]) -> tp.Union[Audio, AudioAndTokens]:
        attributes, prompt_tokens = self._prepare_tokens_and_attributes(descriptions, prompt)
        if all(text is None for text in descriptions):
            attributes = []                 # Nothing to guide towards.
        tokens = self._generate_tokens(attributes, prompt_tokens, progress, num_samples=len(descriptions), seed=seed)
        audio = self.generate_audio(tokens)
        return (audio, tokens) if return_tokens else audio

    def _generate_tokens(self, attributes: list[ConditioningAttributes], prompt_tokens: tp.Optional[torch.Tensor],
                         progress: bool = False, num_samples: tp.Optional[int] = None,
                         seed: tp.Optional[int] = None) -> torch.Tensor:
        batch = num_samples or len(attributes)
        steps = sum(self.generation_params["decoding_steps"])
        with self.autocast, Progress(progress, self._progress_callback) as bar:
            if self._prompt_model is not None:
                prompt_tokens = self._prompt_model.generate(
                    attributes, batch, frames(self.prompt_duration, self.frame_rate), seed, prompt_tokens,
                    bar.part(remaining=steps))
            return self.lm.generate(prompt_tokens, attributes, num_samples=batch, seed=seed,
                                    max_gen_len=frames(self.duration, self.frame_rate), callback=bar.part(),
                                    rescorer=self._rescorer, **self.prompt_params, **self.generation_params)

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


def settings(model: MAGNeT) -> dict[str, tp.Any]:
    """Return everything that a result depends on, except text and seed, as plain values for a JSON file."""
    return {"model": model.name, "duration": model.duration, "sample_rate": model.sample_rate,
            "frame_rate": float(model.frame_rate), "device": str(model.device), "span_len": model.lm.span_len,
            "subcodes_context": model.lm.subcodes_context, "rescorer": model.rescorer_name,
            "prompt_model": model.prompt_model_name, "prompt_duration": model.prompt_duration,
            **({} if model._prompt_model is None else {"prompt_options": dict(model._prompt_model.params)}),
            **dataclasses.asdict(model.options), **model.prompt_params}

