"""Prompt models: an autoregressive model generates the first frames and MAGNeT fills in the rest (a cascade).

This gives the decoding of Hybrid-MAGNeT (arXiv 2401.04577) without training a hybrid model.
"""
import contextlib
import dataclasses
import threading
import typing as tp

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding.magnet import Callback
from .conditions import conditions_for
from .rescorers import check_causal

TOP_K = 250
# For threads: AudioCraft keeps the KV cache in the model, and samples with torch's global random state.
_sampling = threading.RLock()
Seed = tp.Union[int, torch.Generator, None]


@dataclasses.dataclass(frozen=True)
class PromptModel:
    """An autoregressive AudioCraft language model that generates the start of clips.

    Attributes:
        lm: MusicGen's, AudioGen's or another causal model, in evaluation mode.
        name: used in errors and records.
        params: keyword arguments of `LMModel.generate`: use_sampling, temp, top_k, top_p, cfg_coef, two_step_cfg. Missing
            ones have MusicGen's defaults: temperature 1, top-k 250, and the guidance that the model was published with.
    Raises:
        ValueError: the model is not causal, or in training mode.
    """
    lm: LMModel
    name: str = "the prompt model"
    params: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_causal(self.lm, self.name)

    @torch.no_grad()
    def generate(self, conditions: tp.Sequence[ConditioningAttributes], batch: int, length: int, seed: Seed = None,
                 prompt: tp.Optional[torch.Tensor] = None,
                 callback: tp.Optional[Callback] = None) -> torch.Tensor:
        """Generate the first `length` frames autoregressively with a KV cache.

        Args:
            conditions: one entry per sample; none means unconditional.
            batch: number of samples B.
            length: number of frames P to generate, those of `prompt` included.
            seed: the same seed gives the same tokens on the same device and leaves torch's global random state unchanged;
                a generator provides the seed; None continues torch's global random state.
            prompt: tokens to continue, Long [B, K, P0].
            callback: called with (steps done, steps in all).
        Returns:
            Long [B, K, P].
        Raises:
            ValueError: the prompt leaves nothing to generate.
        """
        known = 0 if prompt is None else prompt.shape[-1]
        if length <= known:
            raise ValueError(f"the prompt has {known} frames, but prompt_duration is only {length} frames; raise "
                             "prompt_duration, or set prompt_model=None")
        # An unconditional generation passes conditions too: cross-attention needs a source.
        attributes = conditions_for(self.lm, conditions, batch, self.name)
        device = next(self.lm.parameters()).device
        # AudioCraft's top-k fails if the vocabulary is smaller than k, and its default is 250.
        params = {**self.params, "top_k": min(self.params.get("top_k", TOP_K), self.lm.card)}
        with _sampling, seeded(seed, device):
            return self.lm.generate(prompt, attributes, num_samples=batch, max_gen_len=length, callback=callback,
                                    **params)


@contextlib.contextmanager
def seeded(seed: Seed, device: torch.device) -> tp.Iterator[None]:
    """Seed torch's global random state, of the CPU and of `device`, inside the context, and restore it afterwards.

    AudioCraft's sampling has no generator argument. The seed is derived, because MAGNeT is seeded with the same
    number and would draw the same noise again.
    """
    if seed is None:
        yield
        return
    if isinstance(seed, int):
        seed = torch.Generator().manual_seed(seed)
    derived = int(torch.randint(2 ** 62, (), generator=seed, device=seed.device))
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(derived)
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(derived)
        yield


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
    if not seconds >= 0:
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
