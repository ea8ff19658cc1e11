"""The part of a clip that a hybrid model writes token by token, in the delay pattern (see hybrid.py).

Step s writes the tokens (k, t) of codebook k and frame t with k + t = s.
"""
import typing as tp

import torch

from . import sampling
from .magnet import Callback, Given, NonFiniteLogits
from .options import PromptOptions

Next = tp.Callable[[torch.Tensor, float], torch.Tensor]


def write(next_logits: Next, given: Given, steps: int, options: PromptOptions, *, special: int, use_sampling: bool = True,
          generator: tp.Optional[torch.Generator] = None, callback: tp.Optional[Callback] = None,
          describe: tp.Callable[[], str] = lambda: "") -> Given:
    """Write the tokens of the first steps; what is given stays as it is.

    Args:
        next_logits: `next_logits(column [B, K], guidance) -> logits [B, K, card]` of the next step, called once a step, in
            order; it remembers the columns before. The first column holds special tokens alone.
        given: the clip, and which of its tokens are fixed.
        steps: how many to write, from 0 to T + K - 1.
        options: guidance, temperature, top-k.
        special: the token where the delay pattern has none.
        use_sampling: False takes the most likely tokens.
        generator: source of all randomness, on the tokens' device.
        callback: called with (steps done, steps in all) after each step.
        describe: words on dtype and backend for the error about non-finite logits.
    Returns:
        The clip with more of its tokens fixed: those that were, and all (k, t) with k + t < steps.
    Raises:
        NonFiniteLogits: names the first such step.
    """
    K, T = given.tokens.shape[1:]
    tokens, known = given.tokens.clone(), given.known.clone()
    finite = []
    for step in range(steps):
        logits = next_logits(column(tokens, step, special), options.cfg_coef).float()            # [B, K, card]
        finite.append(logits.isfinite().all())
        if use_sampling:
            probs = torch.softmax(logits / options.temperature, dim=-1)
            sampled = sampling.draw(probs, options.top_k, generator=generator)                   # [B, K]
        else:
            sampled = logits.argmax(dim=-1)
        for k in range(K):
            t = step - k
            if 0 <= t < T:
                tokens[:, k, t] = torch.where(known[:, k, t], tokens[:, k, t], sampled[:, k])
                known[:, k, t] = True
        if callback is not None:
            callback(step + 1, steps)
    if finite and not bool(torch.stack(finite).all()):
        raise NonFiniteLogits(f"logits are not finite at step {int((~torch.stack(finite)).int().argmax())} of the prompt "
                              f"{describe()}; use a wider dtype (bfloat16 or float32) or lower prompt_cfg_coef")
    return Given(tokens, known)


def column(tokens: torch.Tensor, step: int, special: int) -> torch.Tensor:
    """What was written one step before `step`: Long [B, K, T] -> Long [B, K], `special` where there is no such frame."""
    B, K, T = tokens.shape
    out = torch.full((B, K), special, dtype=torch.long, device=tokens.device)
    for k in range(K):
        if 0 <= step - 1 - k < T:
            out[:, k] = tokens[:, k, step - 1 - k]
    return out
