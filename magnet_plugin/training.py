"""What ranks share and what they do not: stages, masks, gradients."""
import typing as tp

import flashy
import torch


def draws(seed: int, epoch: tp.Optional[int], step: int, n_q: int, device: tp.Union[str, torch.device]
          ) -> tuple[int, torch.Generator]:
    """Stage and random generator of one step: a function of seed, epoch, step and rank, so that a step can be repeated.

    Args:
        seed: the experiment's seed.
        epoch: epoch of training; None in validation, whose draws are the same in every epoch.
        step: step within the epoch.
        n_q: number of codebooks K.
        device: where the masks are drawn.
    Returns:
        The stage, the same on all ranks (the ranks' gradients are averaged head by head), and a generator of the rank's
        own masks. Validation takes the stages in turn: few batches see all of them.
    """
    shared = torch.Generator().manual_seed(mix(seed, 0 if epoch is None else epoch, step, 0))
    stage = step % n_q if epoch is None else int(torch.randint(n_q, (), generator=shared))
    own = mix(seed, 0 if epoch is None else epoch, step, 1 + flashy.distrib.rank())
    return stage, torch.Generator(device).manual_seed(own)


def mix(*numbers: int) -> int:
    """One 63-bit seed from several small numbers, spread by the multipliers of SplitMix64 (Steele et al. 2014): neighbours
    get seeds that have nothing in common."""
    mixed = 0
    for number in numbers:
        mixed = (mixed + number + 0x9E3779B97F4A7C15) % (1 << 64)
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % (1 << 64)
        mixed ^= mixed >> 31
    return mixed >> 1


class _Touch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: tp.Any, loss: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
        ctx.params = params
        return loss.clone()

    @staticmethod
    def backward(ctx: tp.Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        return (grad, *(torch.zeros_like(param) for param in ctx.params))


def touch_all(loss: torch.Tensor, params: tp.Iterable[torch.nn.Parameter]) -> torch.Tensor:
    """The loss, through which every one of `params` gets a gradient, of zeros where the loss does not depend on it."""
    return _Touch.apply(loss, *params)
