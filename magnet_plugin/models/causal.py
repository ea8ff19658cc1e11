"""AudioCraft's autoregressive language models, MusicGen's kind, on the fast path."""
import typing as tp

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.codebooks_patterns import CodebooksPatternProvider

from ..engine.forward import Session
from ..modules.context import Causal, Context
from .conditions import ConditionTensors
from .predictors import fast_session
from .transformer import sinusoids


class CausalSource:
    """Positions and contexts of an autoregressive model, see `engines.engine_for`. It does not keep the model alive."""
    subcodes_context, attention_backend = -1, "auto"

    def __init__(self, lm: LMModel) -> None:
        transformer = lm.transformer
        self._settings = lm.dim, transformer.max_period, transformer.positional_scale
        self._device = next(lm.parameters()).device

    def position_embeddings(self, length: int) -> torch.Tensor:
        """What is added to the embeddings of columns 0 to length - 1, float32 [T, dim]."""
        return sinusoids(torch.arange(length, device=self._device)[None], *self._settings)[0]

    def context(self, stage: int) -> Context:
        """Each column attends to itself and to those before it."""
        return Causal()


def causal_session(lm: LMModel, tensors: ConditionTensors, guided: bool, engine: str) -> tp.Optional[Session]:
    """Create the fast path's forward pass over a sequence of columns.

    Args:
        lm: the model.
        tensors: embedded conditions.
        guided: whether the second half of their rows is the unconditional branch.
        engine: `plain` disables the fast path.
    Returns:
        None if the fast path is disabled or does not support this model.
    """
    return fast_session(lm, tensors, guided, "plain" if engine == "plain" else "auto", "model", CausalSource(lm))


def delays_by_codebook(pattern: CodebooksPatternProvider) -> bool:
    """Whether codebook k is delayed by k frames, and nothing else is changed: MusicGen's pattern."""
    wanted = {"delays": list(range(pattern.n_q)), "flatten_first": 0, "empty_initial": 0}
    return all(getattr(pattern, name, None) == value for name, value in wanted.items())
