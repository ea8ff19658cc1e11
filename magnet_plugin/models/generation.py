"""One call of `generate`: its checked arguments, its lock, and the conversion of seconds to frames."""
import dataclasses
import math
import threading
import typing as tp
import weakref

import torch
from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding.known_tokens import KnownTokens
from ..decoding.magnet import Callback, OnStep
from ..decoding.options import GenerationOptions, PromptOptions
from ..decoding.random_source import RandomSource
from ..decoding.rescoring import NoRescoring


def frames(seconds: float, frame_rate: float) -> int:
    """Convert seconds to codec frames, rounding up as AudioCraft's solvers do. Training and generation both use this.

    >>> frames(10, 50), frames(2.51, 50), frames(0.3, 50)
    (500, 126, 15)
    """
    return math.ceil(round(seconds * frame_rate, 6))


_locks: "weakref.WeakKeyDictionary[torch.nn.Module, tp.Any]" = weakref.WeakKeyDictionary()


def lock_of(model: torch.nn.Module) -> tp.ContextManager:
    """Return the lock that one generation with this model holds. The same thread may hold it several times.

    Generations share buffers of captured graphs, a KV cache in AudioCraft's models, and the text tokenizer. The lock is not
    an attribute of the model, because it can be neither copied nor pickled.
    """
    return _locks.setdefault(model, threading.RLock())


def check_arguments(prompt: tp.Any, known: tp.Any, conditions: tp.Any, negative: tp.Any, callback: tp.Any,
                    rescorer: tp.Any) -> None:
    """Raise ValueError unless the arguments of a language model's `generate` have the types that it states."""
    if prompt is not None:
        if not isinstance(prompt, torch.Tensor) or prompt.layout != torch.strided or prompt.is_meta:
            raise ValueError(f"prompt must be a dense tensor of tokens, got {type(prompt).__name__}")
        if prompt.dtype != torch.long:
            raise ValueError(f"prompt must be Long, got {prompt.dtype}")
    if known is not None and not isinstance(known, KnownTokens):
        raise ValueError(f"known_tokens must be KnownTokens, got {type(known).__name__}")
    for name, values in (("conditions", conditions), ("negative", negative)):
        if not isinstance(values, (list, tuple)) or not all(isinstance(one, ConditioningAttributes) for one in values):
            raise ValueError(f"{name} must be a list of ConditioningAttributes, one per sample")
    if callback is not None and not callable(callback):
        raise ValueError(f"callback={callback!r} must be a function of the steps done and the steps in all")
    if rescorer is not None and not hasattr(rescorer, "scorer"):
        raise ValueError(f"rescorer must be a rescorer, such as rescorer_of(model), got {type(rescorer).__name__}")


@dataclasses.dataclass(frozen=True, eq=False)
class Generation:
    """The checked arguments of one call of `generate`.

    Attributes:
        known: the clip to fill in.
        conditions: one entry per sample; none means unconditional.
        negative: conditions that guidance leads away from, one per sample; none means those without a text.
        options: decoding settings.
        prompt_options: settings of autoregressive frames, which only hybrid models have.
        prompt_length: frames of the caller's prompt.
        random: source of randomness.
        callback: called with (steps done, steps in all).
        rescoring: the rescorer's part.
        on_step: called with (step, its masked frames), see `decoding.magnet.decode`.
    """
    known: KnownTokens
    conditions: list[ConditioningAttributes]
    negative: list[ConditioningAttributes]
    options: GenerationOptions
    prompt_options: PromptOptions
    prompt_length: int
    random: RandomSource
    callback: tp.Optional[Callback]
    rescoring: NoRescoring
    on_step: tp.Optional[OnStep] = None

    @property
    def batch(self) -> int:
        """Number of samples B."""
        return len(self.known.tokens)
