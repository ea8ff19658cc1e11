"""Autoregressive decoding of a clip's first frames, in the delay pattern of codebooks (hybrid models, section 3.5).

Step s decodes the tokens (k, t) of codebook k and frame t with k + t = s. Column s + 1 of the sequence that the model reads
holds these tokens, and column 0 only special tokens; see `modules/hybrid_layout.py`.
"""
import typing as tp

import torch

from .known_tokens import KnownTokens
from .magnet import Callback, check_finite
from .options import PromptOptions
from .sampling import Sampler

NextLogits = tp.Callable[[torch.Tensor, float], torch.Tensor]


def decode_prompt(next_logits: NextLogits, known: KnownTokens, steps: int, options: PromptOptions, sampler: Sampler, *,
                  special: int, start: int = 0, callback: tp.Optional[Callback] = None,
                  describe: tp.Callable[[], str] = lambda: "") -> KnownTokens:
    """Decode the tokens of the first steps; known tokens are kept.

    Args:
        next_logits: `next_logits(column [B, K], guidance scale)` gives the logits [B, K, card] of the next step. It is
            called once per step, in order, and caches earlier columns.
        known: the clip, and which of its tokens are fixed.
        steps: number of steps to decode, from 0 to T + K - 1.
        options: guidance and temperature.
        sampler: chooses tokens.
        special: the token where the delay pattern has none.
        start: number of steps, at the beginning, whose tokens are all known and whose columns `next_logits` has cached.
        callback: called with (steps done, steps in all) after each step.
        describe: returns the dtype and backend for the error message about non-finite logits.
    Returns:
        The clip with more known tokens: all (k, t) with k + t < steps.
    Raises:
        NonFiniteLogits: the message names the first such step.
    """
    B, K, _ = known.tokens.shape
    sequence, free = delay(known.tokens, special), delay(~known.known, False)               # [B, K, T + K]
    uniforms = sampler.uniforms(B, sequence.shape[-1], K, device=sequence.device)
    finite = []
    for step in range(start, steps):
        logits = next_logits(sequence[..., step], options.cfg_coef).float()                 # [B, K, card]
        finite.append(logits.isfinite().all())
        probs = torch.softmax(logits / options.temperature, dim=-1)
        sampled = sampler.sample(logits, probs, None if uniforms is None else uniforms[:, step])
        sequence[..., step + 1] = torch.where(free[..., step + 1], sampled, sequence[..., step + 1])
        if callback is not None:
            callback(step + 1 - start, steps - start)
    if finite:
        check_finite(finite, "prompt step", "prompt_cfg_coef", describe, start)
    return decoded(known, sequence, steps)


def delay(tokens: torch.Tensor, special: int) -> torch.Tensor:
    """Arrange tokens [B, K, T] in the delay pattern: [B, K, T + K], `special` where there is no such frame."""
    B, K, T = tokens.shape
    columns = torch.full((B, K, T + K), special, dtype=tokens.dtype, device=tokens.device)
    for k in range(K):
        columns[:, k, 1 + k:1 + k + T] = tokens[:, k]
    return columns


def decoded(known: KnownTokens, columns: torch.Tensor, steps: int) -> KnownTokens:
    """Return a clip after the first steps, whose tokens are in `columns`, Long [B, K, T + K]; the inverse of `delay`."""
    K, T = known.tokens.shape[1:]
    tokens = torch.stack([columns[:, k, 1 + k:1 + k + T] for k in range(K)], dim=1)
    codebook, frame = (torch.arange(size, device=columns.device) for size in (K, T))
    return KnownTokens(tokens, known.known | (codebook[:, None] + frame < steps))
