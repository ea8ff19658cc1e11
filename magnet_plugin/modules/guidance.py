"""Classifier-free guidance: null + coefficient * (conditional - null), and when the null branch can be left out."""
import typing as tp

import torch

Forward = tp.Callable[[torch.Tensor, int, torch.Tensor, bool], torch.Tensor]
NO_GUIDANCE = 1e-5      # a coefficient this close to 1 is 1: the schedule's last one is 0.9999996


class Guide:
    """What decoding calls: `guide(tokens, stage, guidance)`, or `guide.at(..., positions)` for some frames alone.

    Args:
        forward: `forward(tokens [B, K, T], stage, positions [B, M], both) -> logits [B, M, card]`, or [2 B, M, card] with
            the null branch below the conditional one.
        guided: whether there is a null branch; without one the coefficient has no meaning.
        every: compute the null branch in every so many steps and take the difference between the branches from the
            last time in between (approximate where above 1; after LazyMAR, arXiv 2503.12450).
    """

    def __init__(self, forward: Forward, guided: bool, every: int = 1) -> None:
        self.forward, self.guided, self.every = forward, guided, every
        self._stage, self._age = -1, 0
        self._difference: tp.Optional[torch.Tensor] = None

    def __call__(self, tokens: torch.Tensor, stage: int, guidance: float) -> torch.Tensor:
        """Guided logits of all frames, float32 [B, T, card]."""
        B, _, T = tokens.shape
        return self.at(tokens, stage, guidance, torch.arange(T, device=tokens.device).expand(B, T))

    def at(self, tokens: torch.Tensor, stage: int, guidance: float, positions: torch.Tensor) -> torch.Tensor:
        """Guided logits at `positions` [B, M], float32 [B, M, card]."""
        if not self.guided or abs(guidance - 1) < NO_GUIDANCE:
            return self.forward(tokens, stage, positions, False).float()
        self._age = self._age + 1 if stage == self._stage else 0
        self._stage = stage
        if self._age % self.every:
            assert self._difference is not None
            conditional = self.forward(tokens, stage, positions, False).float()
            difference = self._difference.gather(1, positions[..., None].expand_as(conditional))
            return conditional + (guidance - 1) * difference
        conditional, null = self.forward(tokens, stage, positions, True).float().chunk(2)
        if self.every > 1:
            self._remember(conditional - null, positions, tokens.shape[-1])
        return null + (conditional - null) * guidance

    def _remember(self, difference: torch.Tensor, positions: torch.Tensor, length: int) -> None:
        if self._difference is None or self._age == 0:
            self._difference = difference.new_zeros(difference.shape[0], length, difference.shape[-1])
        self._difference.scatter_(1, positions[..., None].expand_as(difference), difference)
