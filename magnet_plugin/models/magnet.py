"""MAGNeT: load a model by name and generate. AudioCraft's `audiocraft.models.MAGNeT`, and more."""
import dataclasses
import typing as tp

import torch
from audiocraft.data.audio_utils import convert_audio
from audiocraft.models.genmodel import BaseGenModel
from audiocraft.modules.conditioners import ConditioningAttributes
from tqdm import tqdm

from ..decoding.options import PRESETS, GenerationOptions, PromptOptions, preset
from ..decoding.rescoring import Rescorer
from ..decoding.rescoring_options import weight_of
from ..environment import default_device
from .auxiliary import Partners, Source
from .lm_hybrid import HybridMagnetLMModel
from .lm_magnet import frames
from .loaders import load_codec, load_magnet_lm
from .prompt_models import PromptWriter

Audio = torch.Tensor
AudioAndTokens = tuple[torch.Tensor, torch.Tensor]


class MAGNeT(BaseGenModel):
    """Text to music or sound by masked parallel decoding (arXiv 2401.04577).

    >>> model = MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu")
    >>> wav = model.generate(["a fast reel in D major played on the violin"], seed=1)
    >>> wav.shape                               # [B, channels, samples]
    torch.Size([1, 1, 80000])
    """

    def __init__(self, rescorer: tp.Optional[Source] = None, **kwargs: tp.Any) -> None:
        super().__init__(**kwargs)
        self._partners = Partners(self.compression_model, self.device)
        self._own_rescorer = rescorer
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
            device: cuda where there is one, else cpu.
            rescorer: the model's rescorer from now on, see `set_generation_params`.
        Raises:
            ValueError: nothing is found there, or it is not a MAGNeT whose weights fit its config.
        """
        device = device or default_device()
        codec = load_codec(name, device)
        lm = load_magnet_lm(name, codec.frame_rate, device)
        return MAGNeT(name=str(name), compression_model=codec, lm=lm, rescorer=rescorer)

    def set_generation_params(self, use_sampling: bool = True, top_k: int = 0, top_p: float = 0.9,
                              temperature: float = 3.0, max_cfg_coef: float = 10.0, min_cfg_coef: float = 1.0,
                              decoding_steps: tp.Optional[tp.Sequence[int]] = None, span_arrangement: str = "stride1",
                              span_scoring: str = "max", anneal_temp: bool = True,
                              duration: tp.Optional[float] = None, *, rescorer: tp.Optional[Source] = None,
                              rescorer_weight: tp.Optional[float] = None, prompt_model: tp.Optional[Source] = None,
                              prompt_duration: tp.Optional[float] = None, prompt_cfg_coef: tp.Optional[float] = None,
                              prompt_temperature: tp.Optional[float] = None, prompt_top_k: tp.Optional[int] = None,
                              **others: tp.Any) -> None:
        """Set how to decode; what is not named goes back to its default. See `GenerationOptions` for the meanings.

        Args:
            temperature: softmax temperature at the start of each stage.
            decoding_steps: steps of each codebook; 20 for the first and 10 for the others by default.
            duration: seconds to generate, at most the length the model was trained on, which is the default.
            rescorer: a model whose opinion is mixed in: a name (hub, `//sig/SIG`, `//bundled/NAME`, a folder), or a
                MusicGen, AudioGen, MAGNeT or `LMModel`, on this model's codec. Default: that of `get_pretrained`.
            rescorer_weight: MAGNeT's own share w in w * p_MAGNeT + (1 - w) * p_rescorer; 1 is MAGNeT alone.
            prompt_model: an autoregressive model, given like a rescorer, that writes the first `prompt_duration` seconds.
            prompt_duration: seconds that are written token by token, from the clip's start, before the rest is filled in
                in parallel: by `prompt_model`, or by a hybrid model itself. Default: 1 s for hybrid models, at most half
                of the clip; 0 for others. A hybrid that is given all of `duration` writes all of it.
            prompt_cfg_coef: guidance coefficient in those seconds; None leaves it to who writes.
            prompt_temperature: softmax temperature there.
            prompt_top_k: likeliest tokens to draw from there.
            **others: fields of `GenerationOptions` and `RescoringOptions` by their names: engine, precision,
                guidance_interval, guidance_every, rescorer_stages, rescorer_every, rescorer_cfg_coef, rescorer_fill, ….
        Raises:
            ValueError: a value that cannot work.
        """
        steps = [20] + [10] * (self.lm.n_q - 1) if decoding_steps is None else decoding_steps
        rescorer = self._own_rescorer if rescorer is None else rescorer
        options = GenerationOptions(use_sampling=use_sampling, top_k=top_k, top_p=top_p, temp=temperature,
                                    max_cfg_coef=max_cfg_coef, min_cfg_coef=min_cfg_coef,
                                    decoding_steps=tuple(steps), span_arrangement=span_arrangement,
                                    span_scoring=span_scoring, anneal_temp=anneal_temp,
                                    rescorer_weight=weight_of(rescorer_weight, rescorer), **others)
        options.check_codebooks(self.lm.n_q)
        duration = self.max_duration if duration is None else duration
        if not 0 < duration <= self.max_duration:
            raise ValueError(f"duration={duration} s: this model was trained on {self.max_duration:g} s; give a duration "
                             f"above 0 and up to {self.max_duration:g}")
        how = {"cfg_coef": prompt_cfg_coef, "temperature": prompt_temperature, "top_k": prompt_top_k}
        how = {name: value for name, value in how.items() if value is not None}
        seconds = self._prompt_seconds(prompt_model, prompt_duration, duration, bool(how))
        writing = PromptOptions(frames(seconds, self.frame_rate), **how)        # type: ignore[arg-type]
        self._use(options, rescorer, prompt_model, writing, how)
        self.duration, self.prompt_duration = duration, seconds

    def _prompt_seconds(self, model: tp.Optional[Source], seconds: tp.Optional[float], duration: float, styled: bool
                        ) -> float:
        """Seconds written token by token; raises ValueError where nobody is there to write them."""
        hybrid = isinstance(self.lm, HybridMagnetLMModel)
        if seconds is None:
            seconds = min(1.0, duration / 2) if hybrid and model is None else 0.0
        if not 0 <= seconds <= duration or model is not None and seconds == duration:
            raise ValueError(f"prompt_duration={seconds} s must be at least 0 and below duration, {duration:g} s (a hybrid "
                             "model may write all of it)")
        if seconds and model is None and not hybrid:
            raise ValueError(f"prompt_duration={seconds} s needs prompt_model=, the autoregressive model that writes them, "
                             "or a hybrid model")
        if model is not None and not seconds:
            raise ValueError("prompt_model is given, but prompt_duration=0; give the seconds that it writes, or leave it "
                             "out")
        if styled and not seconds:
            raise ValueError("prompt_cfg_coef, prompt_temperature and prompt_top_k are for the seconds written token by "
                             "token; give prompt_duration too")
        return seconds

    def set_preset(self, name: str) -> None:
        """The paper's settings: `music-10s`, `music-30s` or `sound-10s`."""
        self._use(preset(name, rescorer_weight=weight_of(None, self._own_rescorer)), self._own_rescorer, None,
                  PromptOptions(), {})

    def _use(self, options: GenerationOptions, rescorer: tp.Optional[Source], prompt_model: tp.Optional[Source],
             writing: PromptOptions, how: tp.Mapping[str, tp.Any]) -> None:
        """Load the models that take part, and put the settings in force."""
        asked = self._partners.rescorer(rescorer) if options.rescores and rescorer is not None else None
        writer: tp.Optional[PromptWriter] = None
        if prompt_model is not None:
            writer = self._partners.prompt_writer(prompt_model)
            own = {{"temperature": "temp"}.get(name, name): value for name, value in how.items()}
            writer = dataclasses.replace(writer, params={**writer.params, **own})
        self._rescorer: tp.Optional[Rescorer] = asked
        self._writer = writer
        self.prompt_params = writing.plain() if isinstance(self.lm, HybridMagnetLMModel) and writer is None else {}
        self.generation_params = options.plain()
        self.prompt_duration = 0.0

    def generate(self, descriptions: tp.Sequence[tp.Optional[str]], progress: bool = False, return_tokens: bool = False,
                 *, seed: tp.Optional[int] = None) -> tp.Union[Audio, AudioAndTokens]:
        """Generate from text.

        Args:
            descriptions: one text per sample.
            progress: show a progress bar.
            return_tokens: give the tokens too.
            seed: the same seed gives the same audio on the same device.
        Returns:
            Audio [B, channels, samples], and tokens [B, K, T] if asked for.
        """
        if isinstance(descriptions, str):
            raise ValueError("descriptions must be a list of texts, not one text: give [text]")
        if not descriptions:
            raise ValueError("descriptions is empty: give at least one text, or call generate_unconditional(num_samples)")
        return self._run(list(descriptions), None, progress, return_tokens, seed)

    def generate_unconditional(self, num_samples: int, progress: bool = False, return_tokens: bool = False, *,
                               seed: tp.Optional[int] = None) -> tp.Union[Audio, AudioAndTokens]:
        """Generate `num_samples` clips from nothing; returns as `generate` does."""
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
            descriptions: one text per sample; none means unconditional.
        Raises:
            ValueError: shape, channels or length of the prompt cannot work.
        """
        prompt = prompt[None] if prompt.dim() == 2 else prompt
        if prompt.dim() != 3 or not prompt.numel():
            raise ValueError(f"prompt must be [B, C, samples] and hold audio, got {list(prompt.shape)}")
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
            attributes = []                 # null conditions alone: nothing to guide towards
        tokens = self._generate_tokens(attributes, prompt_tokens, progress, num_samples=len(descriptions), seed=seed)
        audio = self.generate_audio(tokens)
        return (audio, tokens) if return_tokens else audio

    def _generate_tokens(self, attributes: list[ConditioningAttributes], prompt_tokens: tp.Optional[torch.Tensor],
                         progress: bool = False, num_samples: tp.Optional[int] = None,
                         seed: tp.Optional[int] = None) -> torch.Tensor:
        length, written = frames(self.duration, self.frame_rate), 0
        total = sum(self.generation_params["decoding_steps"])
        with tqdm(unit="step", desc="MAGNeT", disable=not progress or bool(self._progress_callback)) as bar:
            def show(done: int, steps: int) -> None:
                if self._progress_callback is not None:
                    self._progress_callback(done, steps)
                bar.total = steps
                bar.update(done - bar.n)

            def writing(done: int, steps: int) -> None:
                nonlocal written
                written = steps
                show(done, steps + total)

            with self.autocast:
                if self._writer is not None:
                    prompt_tokens = self._writer.write(attributes, num_samples or len(attributes),
                                                       frames(self.prompt_duration, self.frame_rate), seed, prompt_tokens,
                                                       writing if progress else None)
                return self.lm.generate(prompt_tokens, attributes, num_samples=num_samples, max_gen_len=length, seed=seed,
                                        callback=(lambda done, steps: show(written + done, written + steps))
                                        if progress else None, rescorer=self._rescorer, **self.prompt_params,
                                        **self.generation_params)

    @property
    def rescorer_name(self) -> tp.Optional[str]:
        """Name of the rescorer that takes part, or None."""
        return None if self._rescorer is None else self._rescorer.name.removeprefix("rescorer ")

    @property
    def prompt_model_name(self) -> tp.Optional[str]:
        """Name of the model that writes the first seconds, or None."""
        return None if self._writer is None else self._writer.name.removeprefix("prompt_model ")

    @property
    def options(self) -> GenerationOptions:
        """The settings in force."""
        return GenerationOptions(**self.generation_params)


def settings(model: MAGNeT) -> dict[str, tp.Any]:
    """All that decides a result beside text and seed, as plain values: for a file beside the audio."""
    return {"model": model.name, "duration": model.duration, "sample_rate": model.sample_rate,
            "frame_rate": float(model.frame_rate), "device": str(model.device), "span_len": model.lm.span_len,
            "subcodes_context": model.lm.subcodes_context, "rescorer": model.rescorer_name,
            "prompt_model": model.prompt_model_name, "prompt_duration": model.prompt_duration,
            **({} if model._writer is None else {"prompt_options": dict(model._writer.params)}),
            **dataclasses.asdict(model.options), **model.prompt_params}


__all__ = ["MAGNeT", "PRESETS", "settings"]
