"""Drawing tokens from probabilities under top-p or top-k, without sorting and, on a GPU, without synchronizing with it."""
import dataclasses
import math
import typing as tp

import torch

from .random_source import GLOBAL, RandomSource

_MISSES = 1e-8      # On a GPU: the accepted chance that no round hits. Checking would cost more than idle rounds do.


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How the tokens of a step are chosen.

    Attributes:
        use_sampling: draw at random; False chooses the most likely token.
        top_k: see `draw`.
        top_p: see `draw`.
        random: source of randomness.
    """
    use_sampling: bool
    top_k: int = 0
    top_p: float = 0.0
    random: RandomSource = GLOBAL

    def uniforms(self, batch: int, *shape: int, device: torch.device) -> tp.Optional[torch.Tensor]:
        """Draw what `sample` needs for rows of this shape, float32 [batch, *shape, rounds]; None if nothing is sampled."""
        return self.random.uniform(batch, *shape, rounds(self.top_p), device=device) if self.use_sampling else None

    def noise(self, batch: int, *shape: int, place: tuple[int, ...], device: torch.device) -> tp.Optional[torch.Tensor]:
        """Draw noise that several draws share, see `exponential_noise`; None if nothing is sampled.

        Args:
            batch, *shape: shape of the noise.
            place: what the noise is for, see `RandomSource.derived`.
            device: device of the noise.
        """
        if not self.use_sampling:
            return None
        return exponential_noise(self.random.derived(*place).uniform(batch, *shape, device=device))

    def sample(self, logits: torch.Tensor, probs: torch.Tensor, uniforms: tp.Optional[torch.Tensor] = None,
               noise: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
        """Choose a token per row: logits and probabilities [..., card] -> Long [...]. Greedy choices read the logits."""
        return self.draw(probs, uniforms, noise) if self.use_sampling else logits.argmax(dim=-1)

    def draw(self, probs: torch.Tensor, uniforms: tp.Optional[torch.Tensor] = None,
             noise: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
        """Choose a token per row from probabilities only: [..., card] -> Long [...]."""
        if not self.use_sampling:
            return probs.argmax(dim=-1)
        if uniforms is None and noise is None:
            uniforms = self.uniforms(*probs.shape[:-1], device=probs.device)
        return draw(probs, self.top_k, self.top_p, uniforms, noise)


def draw(probs: torch.Tensor, top_k: int, top_p: float, uniforms: tp.Optional[torch.Tensor],
         noise: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
    """Draw one token per row.

    Args:
        probs: [..., card], each row a distribution.
        top_k: draw from the k most likely tokens of a row; 0 draws from all.
        top_p: draw from the nucleus: the most likely tokens up to and including the one with which they reach this
            probability; 0 disables it. It takes precedence over `top_k`. Equally likely tokens are in or out together.
        uniforms: uniform random numbers, [..., rounds(top_p)]; they decide the result.
        noise: result of `exponential_noise`, shaped as `probs`, used instead of `uniforms`. Similar distributions mostly
            give the same token under the same noise.
    Returns:
        Long [...].
    """
    flat = probs.reshape(-1, probs.shape[-1])
    if not top_p and top_k:
        smallest = flat.topk(min(top_k, flat.shape[-1]), dim=-1).values[:, -1:]
        flat = flat.masked_fill(flat < smallest, 0.0)
    choose = _by_inversion(uniforms.flatten(0, -2)) if noise is None and uniforms is not None else _by_noise(noise, flat)
    return _draw_nucleus(flat, top_p or float("inf"), choose).view(probs.shape[:-1])


Choose = tp.Callable[[torch.Tensor, tp.Optional[torch.Tensor], int], torch.Tensor]
"""`choose(weights [M, card], rows [M], round)` draws an index in proportion to the weights for some of the rows, or for all
of them if `rows` is None: Long [M, 1]."""


def _draw_nucleus(probs: torch.Tensor, top_p: float, choose: Choose) -> torch.Tensor:
    """Draw from the nucleus by rejection (after FlashInfer, arXiv 2501.01005): rows [N, card] -> Long [N].

    A token is inside the nucleus if the probabilities above its own sum to at most `top_p`; with `top_p` infinite, every
    token is. If a drawn token is outside, so are all tokens up to its probability, and the next round excludes them. Each
    round keeps the proportions inside the nucleus, so the result has the right distribution.

    On a CPU, rows with a result are removed after each round. On a GPU, where removing them would synchronize, all rows run
    through all rounds.
    """
    result = probs.argmax(dim=-1)                   # Always inside; kept if every round misses.
    rows = torch.arange(len(probs)) if _on_host(probs) else None
    missed = torch.ones_like(result, dtype=torch.bool)
    remaining, floor = probs, probs.new_zeros(len(probs), 1)     # Tokens up to `floor` are excluded.
    for turn in range(rounds(top_p)):
        token = choose(torch.where(remaining > floor, remaining, 0.0), rows, turn)
        chance = remaining.gather(-1, token)
        above = torch.where(remaining > chance, remaining, 0.0).sum(dim=-1, keepdim=True)
        inside = ((above <= top_p) & (chance > floor))[:, 0]        # Rounding can hit a token without weight.
        floor = torch.where(chance > floor, chance, floor)
        if rows is not None:                        # Only continue with the rows that missed.
            result[rows[inside]] = token[inside, 0]
            rows, remaining, floor = rows[~inside], remaining[~inside], floor[~inside]
            if not len(rows):
                break
        else:
            result = torch.where(inside & missed, token[:, 0], result)
            missed = missed & ~inside
    return result


def rounds(top_p: float) -> int:
    """Return the number of rounds of `draw` after which the chance of a miss is below `_MISSES`.

    Each round misses with probability 1 - top_p at most. For small `top_p` the bound is loose, because misses also remove
    tokens; 32 rounds are enough for any value.
    """
    outside = min(max(1 - (top_p or float("inf")), _MISSES), 0.99)
    return min(max(math.ceil(math.log(_MISSES) / math.log(outside)), 2), 32)


def _by_inversion(uniforms: torch.Tensor) -> Choose:
    """Draw by inverting the cumulative sum of the weights at uniform random numbers [N, rounds]."""
    def choose(weights: torch.Tensor, rows: tp.Optional[torch.Tensor], turn: int) -> torch.Tensor:
        sums = weights.cumsum(dim=-1)
        at = _rows(uniforms, rows)[:, turn, None] * sums[:, -1:]
        return torch.searchsorted(sums, at, right=True).clamp_max_(weights.shape[-1] - 1)

    return choose


def _by_noise(noise: tp.Optional[torch.Tensor], like: torch.Tensor) -> Choose:
    """Draw by the Gumbel-max trick with the same exponential noise in every round."""
    if noise is None:
        raise ValueError("draw() requires either uniforms or noise")
    flat = noise.reshape(like.shape)

    def choose(weights: torch.Tensor, rows: tp.Optional[torch.Tensor], turn: int) -> torch.Tensor:
        return (weights / _rows(flat, rows)).argmax(dim=-1, keepdim=True)

    return choose


def _rows(x: torch.Tensor, rows: tp.Optional[torch.Tensor]) -> torch.Tensor:
    return x if rows is None else x[rows]


def exponential_noise(uniform: torch.Tensor) -> torch.Tensor:
    """Turn uniform random numbers into exponential noise, for the Gumbel-max trick in its exponential form.

    The index of the largest `weight / noise` is a draw in proportion to the weights. Similar weights mostly give the same
    index under the same noise.
    """
    tiny = torch.finfo(uniform.dtype).tiny
    return -uniform.clamp_min(tiny).log() + tiny


def _on_host(probs: torch.Tensor) -> bool:
    return probs.device.type == "cpu"
