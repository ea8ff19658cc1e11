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
from ..decoding.random_source import Seed, sample_seeds
from .conditions import conditions_for
from .rescorers import check_causal

TOP_K = 250
# For threads: AudioCraft keeps the KV cache in the model, and samples with torch's global random state.
_sampling = threading.RLock()


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
            seed: one seed, or one per sample (see `sample_seeds`). The same seed gives the same tokens on the same device
                and leaves torch's global random state unchanged. With seeds, samples are generated one by one, because
                AudioCraft draws for a whole batch. None continues torch's global random state.
            prompt: tokens to continue, Long [B, K, P0].
            callback: called with (steps done, steps in all).
        Returns:
            Long [B, K, P].
        Raises:
            ValueError: the prompt leaves nothing to generate.
        """
        seeds = sample_seeds(seed, batch)
        if seeds is None:
            return self._generate(conditions, batch, length, None, prompt, callback)
        return torch.cat([self._generate(conditions[i:i + 1], 1, length, one, None if prompt is None else prompt[i:i + 1],
                                         after(callback, i, batch)) for i, one in enumerate(seeds)])

    def _generate(self, conditions: tp.Sequence[ConditioningAttributes], batch: int, length: int, seed: tp.Optional[int],
                  prompt: tp.Optional[torch.Tensor], callback: tp.Optional[Callback]) -> torch.Tensor:
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


def after(callback: tp.Optional[Callback], index: int, count: int) -> tp.Optional[Callback]:
    """Return the callback of one of `count` equal parts of the work, given that of the whole."""
    return None if callback is None else lambda done, total: callback(index * total + done, count * total)


@contextlib.contextmanager
def seeded(seed: tp.Optional[int], device: torch.device) -> tp.Iterator[None]:
    """Seed torch's global random state, of the CPU and of `device`, inside the context, and restore it afterwards.

    AudioCraft's sampling has no generator argument. The seed is derived, because MAGNeT is seeded with the same
    number and would draw the same noise again.
    """
    if seed is None:
        yield
        return
    derived = int(torch.randint(2 ** 62, (), generator=torch.Generator().manual_seed(seed)))
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(derived)
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(derived)
        yield
