"""What ranks share and what they do not: stages, masks, counts, gradients, clips."""
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


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean over the ranks, float32 of any shape. A collective of training: in validation a rank may stop alone.

    The loss is a mean over masked frames, and the ranks' gradients are averaged. Were each rank to divide by its own
    number of masked frames, those of a rank with few of them (padding, low mask rates) would weigh more than others.
    """
    value = value.float()
    if flashy.distrib.is_distributed():
        value = value.clone()
        torch.distributed.all_reduce(value)
        value /= flashy.distrib.world_size()
    return value


def share_of(length: int, rank: int, world: int) -> list[int]:
    """Which of `length` clips a rank validates with: as many as any other, so that ranks have equally many batches.

    The last ranks may get some of the first clips again. With sharded weights every batch is a collective, and a rank
    without one would leave the others waiting.
    """
    return [index % length for index in range(rank, world * -(-length // world), world)]


def loss_in_parts(loss_of: tp.Callable[[slice, dict], torch.Tensor], size: int, conditions: dict, parts: int,
                  backward: tp.Callable[[torch.Tensor], None], scale: float = 1.0) -> torch.Tensor:
    """The loss of a batch whose activations do not fit into memory at once; its gradient is the same to rounding.

    All parts but the last are differentiated here and now. What they owe to the conditioner's output, which all parts
    share, is paid when the returned loss is differentiated.

    Args:
        loss_of: `loss_of(rows, conditions of these rows)`, the part's share of the batch's loss.
        size: samples B in the batch.
        conditions: embedded conditions, name -> ([B, S, D], [B, S]).
        parts: number of parts, at most B.
        backward: differentiates a part's share.
        scale: what `backward` multiplies losses by.
    Returns:
        The batch's loss, to be differentiated once.
    """
    bounds = [size * i // parts for i in range(parts + 1)]
    slices = [slice(low, high) for low, high in zip(bounds, bounds[1:])]
    owed, before = torch.zeros(()), torch.zeros(())
    for rows in slices[:-1]:
        shares = {name: (value[rows].detach().requires_grad_(value.requires_grad), mask[rows])
                  for name, (value, mask) in conditions.items()}
        share = loss_of(rows, shares)
        backward(share)
        before = before.to(share.device) + share.detach()
        for name, (value, _) in shares.items():
            if value.grad is not None:
                owed = owed.to(value.device) + (conditions[name][0][rows] * (value.grad / scale)).sum()
    last = loss_of(slices[-1], {name: (value[slices[-1]], mask[slices[-1]]) for name, (value, mask) in conditions.items()})
    return last + before.to(last.device) + (owed - owed.detach()).to(last.device)


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
