"""Drawing tokens from probabilities: top-p, top-k, greedy. No host synchronisation."""
import typing as tp

import torch


def truncate(probs: torch.Tensor, top_k: int = 0, top_p: float = 0.0) -> torch.Tensor:
    """Zero the probabilities outside top-p (which wins) or top-k; not renormalised.

    Args:
        probs: [..., card], each row a distribution.
        top_k: keep this many tokens of each row; 0 keeps all.
        top_p: keep the likeliest tokens up to and including the one that reaches this mass; 0 switches it off.
    Returns:
        [..., card] with zeros where a token was cut.
    """
    if top_p > 0.0:
        ordered, index = probs.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered       # mass of the likelier tokens
        return torch.zeros_like(probs).scatter(-1, index, ordered.masked_fill(before > top_p, 0.0))
    if top_k > 0:
        smallest = probs.topk(min(top_k, probs.shape[-1]), dim=-1).values[..., -1:]
        return probs.masked_fill(probs < smallest, 0.0)
    return probs


def draw(weights: torch.Tensor, generator: tp.Optional[torch.Generator] = None) -> torch.Tensor:
    """One index per row of `weights` [..., card] (non-negative, any scale), shape [...].

    An exponential race: index i wins with probability w_i / sum(w). Unlike torch.multinomial it neither checks its
    input on the host nor needs rows that sum to one.
    """
    return race(weights, generator)(weights)


def race(like: torch.Tensor, generator: tp.Optional[torch.Generator] = None) -> tp.Callable[[torch.Tensor], torch.Tensor]:
    """A way of drawing from weights shaped as `like`, always with the same noise: near weights give the same index."""
    noise = torch.empty_like(like).exponential_(generator=generator)
    noise = noise.clamp_min(torch.finfo(noise.dtype).tiny)
    return lambda weights: (weights / noise).argmax(dim=-1)
