"""Drawing tokens from probabilities under top-p or top-k, without sorting and without host synchronisation on a GPU."""
import typing as tp

import torch

_ROUNDS = 24        # on a GPU, where a look at the device costs more than rounds that find nothing left to do


def draw(probs: torch.Tensor, top_k: int = 0, top_p: float = 0.0, generator: tp.Optional[torch.Generator] = None
         ) -> torch.Tensor:
    """One token per row.

    Args:
        probs: [..., card], each row a distribution.
        top_k: draw from the k most likely tokens of a row; 0 draws from all.
        top_p: draw from the most likely tokens up to and including the one with which they reach this mass; 0 switches
            it off. It wins over `top_k`. Tokens of equal probability are in or out together.
        generator: source of randomness on the device of `probs`.
    Returns:
        Long [...].
    """
    flat = probs.reshape(-1, probs.shape[-1])
    if not top_p and top_k:
        smallest = flat.topk(min(top_k, flat.shape[-1]), dim=-1).values[:, -1:]
        flat = flat.masked_fill(flat < smallest, 0.0)
    return _draw_nucleus(flat, top_p or float("inf"), generator).view(probs.shape[:-1])


def _draw_nucleus(probs: torch.Tensor, top_p: float, generator: tp.Optional[torch.Generator]) -> torch.Tensor:
    """Draw, and draw again where the token lies outside of the nucleus (after FlashInfer, arXiv 2501.01005).

    A token is inside if the likelier ones hold no more than `top_p`. One that is outside shows that all tokens up to its
    probability are, and the next draw leaves them out. So each round keeps the proportions inside the nucleus, and soon
    hits it. Rows [N, card] -> Long [N].
    """
    on_host = _on_host(probs)
    result = probs.argmax(dim=-1)                   # always inside: stands where no round has hit
    rows = torch.arange(len(probs), device=probs.device)
    left, floor = probs, probs.new_zeros(len(probs), 1)
    for _ in range(probs.shape[-1] if on_host else _ROUNDS):
        sums = torch.where(left > floor, left, 0.0).cumsum(dim=-1)
        uniform = torch.rand(len(left), 1, generator=generator, device=probs.device, dtype=probs.dtype)
        token = torch.searchsorted(sums, uniform * sums[:, -1:], right=True).clamp_max_(probs.shape[-1] - 1)
        chance = left.gather(-1, token)
        above = torch.where(left > chance, left, 0.0).sum(dim=-1, keepdim=True)
        inside = ((above <= top_p) & (chance > floor))[:, 0]        # rounding can hit a token without weight
        floor = torch.where(chance > floor, chance, floor)
        if on_host:
            result[rows[inside]] = token[inside, 0]
            rows, left, floor = rows[~inside], left[~inside], floor[~inside]
            if not len(rows):
                break
        else:
            result = torch.where(inside & (rows >= 0), token[:, 0], result)
            rows = torch.where(inside, -1, rows)
    return result


def _on_host(probs: torch.Tensor) -> bool:
    return probs.device.type == "cpu"
