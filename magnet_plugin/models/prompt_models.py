"""Hybrid by cascade (paper, "Hybrid-MAGNeT", without new training): an autoregressive model writes the first frames.

MAGNeT then decodes the rest in parallel, with those frames given.
"""
import contextlib
import dataclasses
import typing as tp

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes

from .conditions import conditions_for
from .rescorers import check_causal

TOP_K = 250
Seed = tp.Union[int, torch.Generator, None]


@dataclasses.dataclass(frozen=True)
class PromptWriter:
    """An autoregressive AudioCraft LM that begins clips.

    Attributes:
        lm: MusicGen's, AudioGen's or another causal model, in evaluation mode.
        name: for errors and records.
        params: keyword arguments of `LMModel.generate`: use_sampling, temp, top_k, top_p, cfg_coef, two_step_cfg. What is
            missing is MusicGen's default: temperature 1, top-k 250, the guidance the model was published with.
    Raises:
        ValueError: the model is not causal, or in training mode.
    """
    lm: LMModel
    name: str = "the prompt model"
    params: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_causal(self.lm, self.name)

    @torch.no_grad()
    def write(self, conditions: tp.Sequence[ConditioningAttributes], batch: int, length: int, seed: Seed = None,
              prompt: tp.Optional[torch.Tensor] = None,
              callback: tp.Optional[tp.Callable[[int, int], None]] = None) -> torch.Tensor:
        """The first `length` frames, token by token with a cache of keys and values.

        Args:
            conditions: one entry per sample; none means unconditional.
            batch: number of samples B.
            length: frames P to write, those of `prompt` included.
            seed: the same seed writes the same tokens on the same device, and torch's own random state stays as it was;
                a generator gives the seed; None continues torch's own random state.
            prompt: tokens to go on from, Long [B, K, P0].
            callback: called with (steps done, steps in all).
        Returns:
            Long [B, K, P].
        Raises:
            ValueError: there is nothing to write.
        """
        held = 0 if prompt is None else prompt.shape[-1]
        if length <= held:
            raise ValueError(f"the prompt already has {held} frames, so prompt_model has nothing to write up to frame "
                             f"{length}; raise prompt_duration, or set prompt_model=None")
        # The null conditions of an unconditional generation are told as well: cross-attention needs a source.
        attributes = conditions_for(self.lm, conditions, batch, self.name)
        device = next(self.lm.parameters()).device
        # AudioCraft's top-k fails where the vocabulary is smaller, and its default is 250.
        params = {**self.params, "top_k": min(self.params.get("top_k", TOP_K), self.lm.card)}
        with seeded(seed, device):
            return self.lm.generate(prompt, attributes, num_samples=batch, max_gen_len=length, callback=callback,
                                    **params)


@contextlib.contextmanager
def seeded(seed: Seed, device: torch.device) -> tp.Iterator[None]:
    """Torch's own random state, of the CPU and of `device`, set from `seed` inside and as it was outside.

    AudioCraft's sampling takes no generator. The seed is derived, so that MAGNeT, which is seeded with the same number,
    does not draw the same noise again.
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
