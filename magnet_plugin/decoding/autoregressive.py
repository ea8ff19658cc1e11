"""Autoregressive decoding of a clip's first frames, in the delay pattern of codebooks (hybrid models, section 3.5).

Step s decodes the tokens (k, t) of codebook k and frame t with k + t = s. See `modules/hybrid_layout.py`.
"""
import typing as tp

import torch

from .known_tokens import KnownTokens
from .magnet import Callback, check_finite
from .options import PromptOptions
from .random_source import GLOBAL, RandomSource
from .sampling import Sampler

NextLogits = tp.Callable[[torch.Tensor, float], torch.Tensor]


def decode_prompt(next_logits: NextLogits, known: KnownTokens, steps: int, options: PromptOptions, *, special: int,
                  use_sampling: bool = True, random: RandomSource = GLOBAL,
                  callback: tp.Optional[Callback] = None, describe: tp.Callable[[], str] = lambda: "") -> KnownTokens:
    """Decode the tokens of the first steps; known tokens are kept.

    Args:
        next_logits: `next_logits(column [B, K], guidance scale)` gives the logits [B, K, card] of the next step. It is
            called once per step, in order, and caches earlier columns. The first column only holds special tokens.
        known: the clip, and which of its tokens are fixed.
        steps: number of steps to decode, from 0 to T + K - 1.
        options: guidance, temperature and top-k.
        special: the token where the delay pattern has none.
        use_sampling: draw at random; False chooses the most likely tokens.
        random: the source of all randomness.
        callback: called with (steps done, steps in all) after each step.
        describe: returns the dtype and backend for the error message about non-finite logits.
    Returns:
        The clip with more known tokens: all (k, t) with k + t < steps.
    Raises:
        NonFiniteLogits: the message names the first such step.
    """
    K, T = known.tokens.shape[1:]
    tokens, is_known = known.tokens.clone(), known.known.clone()
    sampler, finite = Sampler(use_sampling, options.top_k, random=random), []
    for step in range(steps):
        logits = next_logits(column(tokens, step, special), options.cfg_coef).float()            # [B, K, card]
        finite.append(logits.isfinite().all())
        sampled = sampler.sample(logits, torch.softmax(logits / options.temperature, dim=-1))    # [B, K]
        for k in range(K):
            t = step - k
            if 0 <= t < T:
                tokens[:, k, t] = torch.where(is_known[:, k, t], tokens[:, k, t], sampled[:, k])
                is_known[:, k, t] = True
        if callback is not None:
            callback(step + 1, steps)
    if finite:
        check_finite(finite, "prompt step", "prompt_cfg_coef", describe)
    return KnownTokens(tokens, is_known)


def column(tokens: torch.Tensor, step: int, special: int) -> torch.Tensor:
    """The tokens decoded one step before `step`: Long [B, K, T] -> Long [B, K], `special` where there is no such frame."""
    B, K, T = tokens.shape
    out = torch.full((B, K), special, dtype=torch.long, device=tokens.device)
    for k in range(K):
        if 0 <= step - 1 - k < T:
            out[:, k] = tokens[:, k, step - 1 - k]
    return out
