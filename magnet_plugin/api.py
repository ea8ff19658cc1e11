"""MAGNeT: load a model by name and generate. AudioCraft's `audiocraft.models.MAGNeT`, and more."""
import dataclasses
import typing as tp

import torch
from audiocraft.data.audio_utils import convert_audio
from audiocraft.models.genmodel import BaseGenModel
from audiocraft.modules.conditioners import ConditioningAttributes
from tqdm import tqdm

from .environment import default_device
from .lm import frames
from .lm_hybrid import HybridMagnetLMModel
from .loading import load_codec, load_magnet_lm
from .options import PRESETS, GenerationOptions, PromptOptions, preset

Audio = torch.Tensor
AudioAndTokens = tuple[torch.Tensor, torch.Tensor]


class MAGNeT(BaseGenModel):
    """Text to music or sound by masked parallel decoding (arXiv 2401.04577).

    >>> model = MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu")
    >>> wav = model.generate(["a fast reel in D major played on the violin"], seed=1)
    >>> wav.shape                               # [B, channels, samples]
    torch.Size([1, 1, 80000])
    """

    def __init__(self, **kwargs: tp.Any) -> None:
        super().__init__(**kwargs)
        self.set_generation_params()

    @staticmethod
    def get_pretrained(name: str = "facebook/magnet-small-10secs",
                       device: tp.Union[str, torch.device, None] = None) -> "MAGNeT":
        """Load a model.

        Args:
            name: `//bundled/NAME`, a Dora signature `//sig/SIG`, a release folder, a training checkpoint, or one of the
                published models: facebook/magnet-{small,medium}-{10secs,30secs} (music) and
                facebook/audio-magnet-{small,medium} (sound).
            device: cuda where there is one, else cpu.
        Raises:
            ValueError: nothing is found there, or it is not a MAGNeT whose weights fit its config.
        """
        device = device or default_device()
        codec = load_codec(name, device)
        lm = load_magnet_lm(name, codec.frame_rate, device)
        return MAGNeT(name=str(name), compression_model=codec, lm=lm)

    def set_generation_params(self, use_sampling: bool = True, top_k: int = 0, top_p: float = 0.9,
                              temperature: float = 3.0, max_cfg_coef: float = 10.0, min_cfg_coef: float = 1.0,
                              decoding_steps: tp.Optional[tp.Sequence[int]] = None, span_arrangement: str = "stride1",
                              span_scoring: str = "max", anneal_temp: bool = True,
                              duration: tp.Optional[float] = None, *, prompt_duration: tp.Optional[float] = None,
                              prompt_cfg_coef: float = PromptOptions.cfg_coef,
                              prompt_temperature: float = PromptOptions.temperature,
                              prompt_top_k: int = PromptOptions.top_k, **faster: tp.Any) -> None:
        """Set how to decode; what is not named goes back to its default. See `GenerationOptions` for the meanings.

        Args:
            temperature: softmax temperature at the start of each stage.
            decoding_steps: steps of each codebook; 20 for the first and 10 for the others by default.
            duration: seconds to generate, at most the length the model was trained on, which is the default.
            prompt_duration: seconds that a hybrid model writes token by token before it goes on in parallel; 0 for none,
                `duration` for all. Default: 1 s, at most half of the clip. Other models have none.
            prompt_cfg_coef: guidance coefficient in those seconds, `prompt_temperature` and `prompt_top_k` likewise.
            **faster: `engine`, `precision`, `guidance_interval`, `guidance_every`, as in `GenerationOptions`.
        Raises:
            ValueError: a value that cannot work.
        """
        steps = [20] + [10] * (self.lm.n_q - 1) if decoding_steps is None else decoding_steps
        options = GenerationOptions(use_sampling=use_sampling, top_k=top_k, top_p=top_p, temp=temperature,
                                    max_cfg_coef=max_cfg_coef, min_cfg_coef=min_cfg_coef,
                                    decoding_steps=tuple(steps), span_arrangement=span_arrangement,
                                    span_scoring=span_scoring, anneal_temp=anneal_temp, **faster)
        options.check_codebooks(self.lm.n_q)
        duration = self.max_duration if duration is None else duration
        if not 0 < duration <= self.max_duration:
            raise ValueError(f"duration={duration} s: this model was trained on {self.max_duration:g} s; give a duration "
                             f"above 0 and up to {self.max_duration:g}")
        writing = self._prompt_options(duration, prompt_duration, prompt_cfg_coef, prompt_temperature, prompt_top_k)
        self.duration = duration
        self.generation_params = options.plain()
        self.prompt_params = writing.plain() if isinstance(self.lm, HybridMagnetLMModel) else {}

    def _prompt_options(self, duration: float, seconds: tp.Optional[float], *others: tp.Any) -> PromptOptions:
        hybrid = isinstance(self.lm, HybridMagnetLMModel)
        if seconds and not hybrid:
            raise ValueError(f"prompt_duration={seconds} s: this model writes nothing token by token; give 0, or load a "
                             "hybrid model")
        if seconds is None:
            seconds = min(1.0, duration / 2) if hybrid else 0.0
        if not 0 <= seconds <= duration:
            raise ValueError(f"prompt_duration={seconds} s must be from 0 to duration={duration:g} s")
        return PromptOptions(frames(seconds, self.frame_rate), *others)

    def set_preset(self, name: str) -> None:
        """The paper's settings: `music-10s`, `music-30s` or `sound-10s`."""
        options = preset(name)
        self.generation_params = options.plain()

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
        length = frames(self.duration, self.frame_rate)
        with tqdm(unit="step", desc="MAGNeT", disable=not progress or bool(self._progress_callback)) as bar:
            def show(done: int, steps: int) -> None:
                if self._progress_callback is not None:
                    self._progress_callback(done, steps)
                bar.total = steps
                bar.update(done - bar.n)

            with self.autocast:
                return self.lm.generate(prompt_tokens, attributes, num_samples=num_samples, max_gen_len=length,
                                        seed=seed, callback=show if progress else None, **self.prompt_params,
                                        **self.generation_params)

    @property
    def options(self) -> GenerationOptions:
        """The settings in force."""
        return GenerationOptions(**self.generation_params)


def settings(model: MAGNeT) -> dict[str, tp.Any]:
    """All that decides a result beside text and seed, as plain values: for a file beside the audio."""
    return {"model": model.name, "duration": model.duration, "sample_rate": model.sample_rate,
            "frame_rate": float(model.frame_rate), "device": str(model.device), "span_len": model.lm.span_len,
            "subcodes_context": model.lm.subcodes_context, **dataclasses.asdict(model.options), **model.prompt_params}


__all__ = ["MAGNeT", "PRESETS", "settings"]
