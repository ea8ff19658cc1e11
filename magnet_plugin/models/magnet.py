"""MAGNeT: load a model by name and generate. Replaces AudioCraft's `audiocraft.models.MAGNeT`."""
import copy
import typing as tp

import torch
from audiocraft.data.audio_utils import convert_audio
from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding.random_source import Seed, sample_seeds
from ..environment import default_device
from .auxiliary import Source
from .generation import frames
from .loaders import load_codec, load_magnet_lm
from .progress import Progress
from .settings import ConfigurableModel

Audio = torch.Tensor
AudioAndTokens = tuple[torch.Tensor, torch.Tensor]


class MAGNeT(ConfigurableModel):
    """Text to music or sound by masked parallel decoding (arXiv 2401.04577).

    >>> model = MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu")
    >>> wav = model.generate(["a fast reel in D major played on the violin"], seed=1)
    >>> wav.shape                               # [B, channels, samples]
    torch.Size([1, 1, 80000])

    Args:
        rescorer: default rescorer, see `set_generation_params`.
        **kwargs: `name`, `compression_model`, `lm` and `max_duration`, the arguments of AudioCraft's `BaseGenModel`.
    """

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

    def generate(self, descriptions: tp.Sequence[tp.Optional[str]], progress: bool = False, return_tokens: bool = False,
                 *, seed: Seed = None) -> tp.Union[Audio, AudioAndTokens]:
        """Generate from text.

        Args:
            descriptions: one text per sample.
            progress: show a progress bar.
            return_tokens: return the tokens too.
            seed: the same seed gives the same audio on the same device; one seed, or one per sample, see `sample_seeds`.
        Returns:
            Audio [B, channels, samples]; with `return_tokens` also tokens [B, K, T].
        """
        if isinstance(descriptions, str):
            raise ValueError("descriptions must be a list of texts, not one text; pass [text]")
        if not descriptions:
            raise ValueError("descriptions is empty; pass at least one text, or call generate_unconditional(num_samples)")
        return self._run(list(descriptions), None, progress, return_tokens, seed)

    def generate_unconditional(self, num_samples: int, progress: bool = False, return_tokens: bool = False, *,
                               seed: Seed = None) -> tp.Union[Audio, AudioAndTokens]:
        """Generate `num_samples` clips without a text; the result is like that of `generate`."""
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples} must be at least 1")
        return self._run([None] * num_samples, None, progress, return_tokens, seed)

    def generate_continuation(self, prompt: torch.Tensor, prompt_sample_rate: int,
                              descriptions: tp.Optional[tp.Sequence[tp.Optional[str]]] = None, progress: bool = False,
                              return_tokens: bool = False, *, seed: Seed = None
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

    def warmup(self, batch_size: int = 1, duration: tp.Optional[float] = None) -> None:
        """Do in advance what only the first generation pays for, so that the first `generate` is as fast as later ones.

        A throwaway clip is generated from a text with the present settings. This prepares the fast path's weights and, on a
        GPU, captures the CUDA graphs of all steps. On a CPU, one step per codebook and one prompt frame are enough. Torch's
        global random state stays unchanged. Call it again after changing settings, batch size or duration: graphs are
        captured for one shape, and for texts of up to 64 tokens.

        Args:
            batch_size: number of samples of the generations to come.
            duration: their length in seconds. Default: that of `set_generation_params`.
        Raises:
            ValueError: an argument is invalid.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        model = copy.copy(self)
        if duration is not None:
            model.duration = self._check_duration(duration)
        if self.device.type == "cpu":
            model._shorten()
        model.generate(["a melody on the piano"] * batch_size, seed=0)

    def _run(self, descriptions: list[tp.Optional[str]], prompt: tp.Optional[torch.Tensor], progress: bool,
             return_tokens: bool, seed: Seed) -> tp.Union[Audio, AudioAndTokens]:
        attributes, prompt_tokens = self._prepare_tokens_and_attributes(descriptions, prompt)
        if all(text is None for text in descriptions):
            attributes = []                 # Nothing to guide towards.
        seeds = sample_seeds(seed, len(descriptions))
        tokens = self._generate_tokens(attributes, prompt_tokens, progress, num_samples=len(descriptions), seed=seeds)
        audio = self.generate_audio(tokens)
        return (audio, tokens) if return_tokens else audio

    def _generate_tokens(self, attributes: list[ConditioningAttributes], prompt_tokens: tp.Optional[torch.Tensor],
                         progress: bool = False, num_samples: tp.Optional[int] = None,
                         seed: Seed = None) -> torch.Tensor:
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
