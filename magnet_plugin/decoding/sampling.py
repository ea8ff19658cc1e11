"""Drawing tokens from probabilities under top-p or top-k, without sorting and without host synchronisation on a GPU."""
import math
import typing as tp

import torch

_MISSES = 1e-8      # on a GPU, chance that no round hits: a look at the device costs more than rounds without work


def draw(probs: torch.Tensor, top_k: int = 0, top_p: float = 0.0, generator: tp.Optional[torch.Generator] = None,
         noise: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
    """One token per row.

    Args:
        probs: [..., card], each row a distribution.
        top_k: draw from the k most likely tokens of a row; 0 draws from all.
        top_p: draw from the most likely tokens up to and including the one with which they reach this mass; 0 switches
            it off. It wins over `top_k`. Tokens of equal probability are in or out together.
        generator: source of randomness on the device of `probs`.
        noise: of `race_noise`, shaped as `probs`, in place of the generator: draws with the same noise are alike.
    Returns:
        Long [...].
    """
    flat = probs.reshape(-1, probs.shape[-1])
    if not top_p and top_k:
        smallest = flat.topk(min(top_k, flat.shape[-1]), dim=-1).values[:, -1:]
        flat = flat.masked_fill(flat < smallest, 0.0)
    noise = None if noise is None else noise.reshape(flat.shape)
    return _draw_nucleus(flat, top_p or float("inf"), generator, noise).view(probs.shape[:-1])


def _draw_nucleus(probs: torch.Tensor, top_p: float, generator: tp.Optional[torch.Generator],
                  noise: tp.Optional[torch.Tensor]) -> torch.Tensor:
    """Draw, and draw again where the token lies outside of the nucleus (after FlashInfer, arXiv 2501.01005).

    A token is inside if the likelier ones hold no more than `top_p`. One that is outside shows that all tokens up to its
    probability are, and the next draw leaves them out. So each round keeps the proportions inside the nucleus, and soon
    hits it. Rows [N, card] -> Long [N].
    """
    on_host = _on_host(probs)
    result = probs.argmax(dim=-1)                   # always inside: stands where no round has hit
    rows = torch.arange(len(probs), device=probs.device)
    left, floor = probs, probs.new_zeros(len(probs), 1)
    for _ in range(probs.shape[-1] if on_host else _rounds(top_p)):
        weights = torch.where(left > floor, left, 0.0)
        token = _invert(weights, generator) if noise is None else (weights / noise).argmax(dim=-1, keepdim=True)
        chance = left.gather(-1, token)
        above = torch.where(left > chance, left, 0.0).sum(dim=-1, keepdim=True)
        inside = ((above <= top_p) & (chance > floor))[:, 0]        # rounding can hit a token without weight
        floor = torch.where(chance > floor, chance, floor)
        if on_host:
            result[rows[inside]] = token[inside, 0]
            rows, left, floor = rows[~inside], left[~inside], floor[~inside]
            noise = None if noise is None else noise[~inside]
            if not len(rows):
                break
        else:
            result = torch.where(inside & (rows >= 0), token[:, 0], result)
            rows = torch.where(inside, -1, rows)
    return result


def _rounds(top_p: float) -> int:
    """Rounds after which the chance of a miss is below `_MISSES`: each one misses with no more than 1 - top_p. That bound
    is loose for small `top_p`, as misses also shrink what is left: 32 rounds are enough for any."""
    outside = min(max(1 - top_p, _MISSES), 0.99)
    return min(max(math.ceil(math.log(_MISSES) / math.log(outside)), 2), 32)


def _invert(weights: torch.Tensor, generator: tp.Optional[torch.Generator]) -> torch.Tensor:
    """An index per row of [N, card], with probability as its weight, by inversion of the cumulative sum: [N, 1]."""
    sums = weights.cumsum(dim=-1)
    uniform = torch.rand(len(weights), 1, generator=generator, device=weights.device, dtype=weights.dtype)
    return torch.searchsorted(sums, uniform * sums[:, -1:], right=True).clamp_max_(weights.shape[-1] - 1)


def race_noise(like: torch.Tensor, generator: tp.Optional[torch.Generator] = None) -> torch.Tensor:
    """Exponential noise shaped as `like`. The index of the largest weight / noise is drawn with probability as its weight,
    and weights that are near to one another mostly draw the same index with the same noise."""
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    tiny = torch.finfo(like.dtype).tiny
    return -uniform.clamp_min(tiny).log() + tiny


def _on_host(probs: torch.Tensor) -> bool:
    return probs.device.type == "cpu"
