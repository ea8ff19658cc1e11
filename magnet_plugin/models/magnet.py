"""MAGNeT: load a model by name and generate. Replaces AudioCraft's `audiocraft.models.MAGNeT`."""
import copy
import typing as tp

import torch
from audiocraft.data.audio_utils import convert_audio

from ..decoding.known_tokens import KnownTokens
from ..decoding.option_types import whole
from ..decoding.random_source import Seed, sample_seeds
from ..environment import default_device
from . import codec_chunks
from .auxiliary import Source
from .editing import EditingMethods
from .generation import frames
from .loaders import load_codec, load_magnet_lm
from .stereo import clip_frames
from .texts import Description, Texts, Timed
from .waveforms import read_waveform

Audio = torch.Tensor
AudioAndTokens = tuple[torch.Tensor, torch.Tensor]
OnWindow = tp.Callable[[torch.Tensor, float], None]


class MAGNeT(EditingMethods):
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
                 *, seed: Seed = None, negative_descriptions: tp.Union[Description, tp.Sequence[Description]] = None,
                 timed_descriptions: Timed = (), bpm: tp.Optional[float] = None, key: tp.Optional[str] = None,
                 on_window: tp.Optional[OnWindow] = None) -> tp.Union[Audio, AudioAndTokens]:
        """Generate from text.

        Args:
            descriptions: one text per sample.
            progress: show a progress bar.
            return_tokens: return the tokens too.
            seed: the same seed gives the same audio on the same device; one seed, or one per sample, see `sample_seeds`.
            negative_descriptions: what guidance leads away from, instead of the unconditional branch: one text, or one per
                sample.
            timed_descriptions: (start in seconds, text) for clips of several windows. From its start on, a text is added to
                the description of every sample, in place of the one before it.
            bpm, key: tempo in beats per minute and key, such as `F# minor`, which are added to each description as words. A
                model follows them as far as its captions had such words, as those of the bundled models do.
            on_window: called with (audio [B, channels, samples], its start in seconds) as soon as a piece is finished.
        Returns:
            Audio [B, channels, samples]; with `return_tokens` also tokens [B, K, T].
        """
        texts = Texts.read(descriptions, negative=negative_descriptions, timed=timed_descriptions).with_wishes(bpm, key)
        return self._run(texts, None, progress, return_tokens, seed, on_window)

    def generate_unconditional(self, num_samples: int, progress: bool = False, return_tokens: bool = False, *,
                               seed: Seed = None) -> tp.Union[Audio, AudioAndTokens]:
        """Generate `num_samples` clips without a text; the result is like that of `generate`."""
        if whole("num_samples", num_samples) < 1:
            raise ValueError(f"num_samples={num_samples} must be at least 1")
        return self._run(Texts.read(None, num_samples), None, progress, return_tokens, seed)

    def generate_continuation(self, prompt: torch.Tensor, prompt_sample_rate: int,
                              descriptions: tp.Optional[tp.Sequence[tp.Optional[str]]] = None, progress: bool = False,
                              return_tokens: bool = False, *, seed: Seed = None,
                              negative_descriptions: tp.Union[Description, tp.Sequence[Description]] = None,
                              timed_descriptions: Timed = (), on_window: tp.Optional[OnWindow] = None
                              ) -> tp.Union[Audio, AudioAndTokens]:
        """Continue audio up to `duration`.

        Args:
            prompt: waveforms [B, C, samples], or [C, samples] for one, see `read_waveform`.
            prompt_sample_rate: their sample rate in Hz.
            descriptions: one text per sample; None generates without a text.
            progress, return_tokens, seed, ...: see `generate`.
        Raises:
            ValueError: shape, channels or length of the prompt are invalid.
        """
        prompt = read_waveform(prompt, prompt_sample_rate, self.audio_channels, "prompt")
        texts = Texts.read(descriptions, len(prompt), negative_descriptions, timed_descriptions)
        seconds = prompt.shape[-1] / prompt_sample_rate
        if seconds >= self.duration:
            raise ValueError(f"the prompt lasts {seconds:.2f} s, but duration is {self.duration:g} s; cut the prompt or "
                             "raise duration in set_generation_params")
        given, generated = (frames(length, self.frame_rate) for length in (seconds, self.prompt_duration))
        if self._prompt_model is not None and given >= generated:
            raise ValueError(f"the prompt lasts {seconds:.2f} s, but prompt_model only generates up to prompt_duration="
                             f"{self.prompt_duration:g} s; raise prompt_duration, or set prompt_model=None")
        prompt = convert_audio(prompt, prompt_sample_rate, self.sample_rate, self.audio_channels)
        return self._run(texts, prompt, progress, return_tokens, seed, on_window)

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
        if whole("batch_size", batch_size) < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        model = copy.copy(self)
        if duration is not None:
            model.duration = self._check_duration(duration)
        if self.device.type == "cpu":
            model._shorten()
        model.generate(["a melody on the piano"] * batch_size, seed=0)

    def _run(self, texts: Texts, prompt: tp.Optional[torch.Tensor], progress: bool, return_tokens: bool, seed: Seed,
             on_window: tp.Optional[OnWindow] = None) -> tp.Union[Audio, AudioAndTokens]:
        if on_window is not None and not callable(on_window):
            raise ValueError(f"on_window={on_window!r} must be a function of a piece of audio and its start in seconds")
        batch, length = len(texts.descriptions), clip_frames(self.duration, self.compression_model)
        start = torch.zeros(batch, self.lm.n_q, 0, dtype=torch.long, device=next(self.lm.parameters()).device)
        if prompt is not None:
            start = codec_chunks.encode(self.compression_model, prompt.to(self.device))
        stream = codec_chunks.AudioStream(self.compression_model, on_window)
        tokens = self._fill(KnownTokens.from_prompt(start, length), texts, sample_seeds(seed, batch), progress,
                            prompt_frames=start.shape[-1], on_tokens=stream.push)
        return (stream.audio(), tokens) if return_tokens else stream.audio()
