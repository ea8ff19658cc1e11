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

from ..decoding.known_tokens import KnownTokens
from ..decoding.magnet import Callback
from ..decoding.options import PromptOptions
from ..decoding.random_source import RandomSource, Seed, sample_seeds
from ..decoding.sampling import Sampler
from ..engine.causal import CausalSession
from .causal import causal_session, delays_by_codebook
from .conditions import conditions_for, embed, has_text
from .generation import lock_of
from .predictors import decode_prompt
from .rescorers import check_causal

#: Settings of `LMModel.generate` that the fast path has too, with MusicGen's defaults.
DEFAULTS: tp.Mapping[str, tp.Any] = {"use_sampling": True, "temp": 1.0, "top_k": 250, "top_p": 0.0, "cfg_coef": None,
                                     "two_step_cfg": None}
_PLACE = -1         # MAGNeT is seeded with the same numbers; a derived seed does not draw its noise again.
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
        engine: `plain` generates by AudioCraft's own `LMModel.generate`; otherwise the fast path does where it supports the
            model, its pattern of codebooks and `params`. Both draw from the same distribution; `two_step_cfg` makes no
            difference on the fast path, which always computes both branches of guidance in one pass.
    Raises:
        ValueError: the model is not causal, or in training mode.
    """
    lm: LMModel
    name: str = "the prompt model"
    params: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)
    engine: str = "auto"

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
                and leaves torch's global random state unchanged. None continues torch's global random state.
            prompt: tokens to continue, Long [B, K, P0].
            callback: called with (steps done, steps in all).
        Returns:
            Long [B, K, P].
        Raises:
            ValueError: the prompt leaves nothing to generate.
        """
        device = next(self.lm.parameters()).device
        prompt = torch.zeros(batch, self.lm.n_q, 0, dtype=torch.long, device=device) if prompt is None else prompt
        if length <= prompt.shape[-1]:
            raise ValueError(f"the prompt has {prompt.shape[-1]} frames, but prompt_duration is only {length} frames; raise "
                             "prompt_duration, or set prompt_model=None")
        # An unconditional generation passes conditions too: cross-attention needs a source.
        attributes = conditions_for(self.lm, conditions, batch, self.name)
        seeds = sample_seeds(seed, batch)
        with lock_of(self.lm):
            decoded = self._by_fast_path(attributes, prompt, length, RandomSource.seeded(seeds, device), callback)
        if decoded is not None:
            return decoded
        if seeds is None:
            return self._by_audiocraft(attributes, length, None, prompt, callback)
        # AudioCraft draws for a whole batch, so that samples with seeds of their own are generated one by one.
        return torch.cat([self._by_audiocraft(attributes[i:i + 1], length, one, prompt[i:i + 1], after(callback, i, batch))
                          for i, one in enumerate(seeds)])

    def _by_fast_path(self, attributes: list[ConditioningAttributes], prompt: torch.Tensor, length: int,
                      random: RandomSource, callback: tp.Optional[Callback]) -> tp.Optional[torch.Tensor]:
        """Generate by the engine; None if it does not support this."""
        unknown = [name for name, value in self.params.items() if name not in DEFAULTS and value is not None]
        if self.engine == "plain" or unknown or not delays_by_codebook(self.lm.pattern_provider):
            return None
        params = {**DEFAULTS, **self.params}
        sampling = params["use_sampling"] and params["temp"] > 0
        scale = self.lm.cfg_coef if params["cfg_coef"] is None else params["cfg_coef"]
        guided = scale != 1 and has_text(attributes)
        session = causal_session(self.lm, embed(self.lm, attributes, guided), guided, self.engine)
        if session is None:
            return None
        steps = length + self.lm.n_q - 1
        decoder = CausalSession(session, len(prompt), guided, steps)
        options = PromptOptions(length, scale, params["temp"] if sampling else 1.0)
        sampler = Sampler(sampling, params["top_k"], params["top_p"], random.derived(_PLACE))
        return decode_prompt(decoder, KnownTokens.from_prompt(prompt, length), steps, options, sampler,
                             special=self.lm.special_token_id, start=prompt.shape[-1], callback=callback,
                             describe=lambda: f"({self.name})").tokens

    def _by_audiocraft(self, attributes: list[ConditioningAttributes], length: int, seed: tp.Optional[int],
                       prompt: torch.Tensor, callback: tp.Optional[Callback]) -> torch.Tensor:
        # AudioCraft's top-k fails if the vocabulary is smaller than k, and its default is 250.
        params = {**self.params, "top_k": min(self.params.get("top_k", DEFAULTS["top_k"]), self.lm.card)}
        with _sampling, seeded(seed, prompt.device):
            return self.lm.generate(prompt, attributes, num_samples=len(prompt), max_gen_len=length, callback=callback,
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
