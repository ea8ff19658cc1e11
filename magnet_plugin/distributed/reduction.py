"""Combine ranks and micro-batches into one loss and one gradient."""
import typing as tp

import flashy
import torch

#: Embedded conditions of a batch: name -> (embeddings [B, S, D], mask [B, S]).
Conditions = dict[str, tuple[torch.Tensor, torch.Tensor]]


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Average a tensor over all ranks.

    This is a collective operation: call it on every rank, and only in training, because a rank may leave
    validation before the others.

    The training loss divides by the mean number of masked frames per rank. Dividing by each rank's own number would give
    frames of ranks with few masked frames (padding, low mask rates) more weight in the averaged gradient.

    Args:
        value: tensor of any shape; it is not changed.

    Returns:
        Float32 tensor of the same shape.
    """
    value = value.float()
    if flashy.distrib.is_distributed():
        value = value.clone()
        torch.distributed.all_reduce(value)
        value /= flashy.distrib.world_size()
    return value


def max_over_ranks(value: int) -> int:
    """Return the largest value of any rank. This is a collective operation."""
    if not flashy.distrib.is_distributed():
        return value
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    highest = torch.tensor(value, device=device)
    torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
    return int(highest)


def shard_indices(length: int, rank: int, world_size: int) -> list[int]:
    """Return the indices of the clips that a rank validates.

    Every rank gets the same number of clips, so that all ranks run the same number of batches: with FSDP each batch is a
    collective operation. To make this possible, the last ranks may repeat some of the first clips.

    Args:
        length: number of clips in the dataset.
        rank: rank of this process.
        world_size: number of ranks.
    """
    return [index % length for index in range(rank, world_size * -(-length // world_size), world_size)]


def accumulate_gradients(loss_of: tp.Callable[[slice, Conditions], torch.Tensor], size: int, conditions: Conditions,
                         micro_batches: int, backward: tp.Callable[[torch.Tensor], None], scale: float = 1.0
                         ) -> torch.Tensor:
    """Compute the loss of a batch in micro-batches, to use less memory for activations.

    The gradient equals that of the whole batch up to rounding. The backward pass of all micro-batches but the last runs
    here. The gradient that they send to the conditioners, whose output all micro-batches share, is carried by the returned
    loss and reaches the conditioners in its backward pass.

    Args:
        loss_of: called with the rows of a micro-batch and their conditions; returns its share of the loss.
        size: number of samples B.
        conditions: embedded conditions of the batch.
        micro_batches: number of micro-batches, from 1 to B.
        backward: runs the backward pass of a share.
        scale: factor by which `backward` multiplies losses (the scale of a gradient scaler).

    Returns:
        The loss of the whole batch. Call its backward pass once.
    """
    bounds = [size * i // micro_batches for i in range(micro_batches + 1)]
    *earlier, last = [slice(low, high) for low, high in zip(bounds, bounds[1:])]
    carried, done = torch.zeros(()), torch.zeros(())
    for rows in earlier:
        detached = {name: (value[rows].detach().requires_grad_(value.requires_grad), mask[rows])
                    for name, (value, mask) in conditions.items()}
        share = loss_of(rows, detached)
        backward(share)
        done = done.to(share.device) + share.detach()
        for name, (value, _) in detached.items():
            if value.grad is not None:
                carried = carried.to(value.device) + (conditions[name][0][rows] * (value.grad / scale)).sum()
    loss = loss_of(last, {name: (value[last], mask[last]) for name, (value, mask) in conditions.items()})
    return loss + done.to(loss.device) + (carried - carried.detach()).to(loss.device)


class _Touch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: tp.Any, loss: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
        ctx.params = params
        return loss.clone()

    @staticmethod
    def backward(ctx: tp.Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        return (grad, *(torch.zeros_like(param) for param in ctx.params))


def touch_all(loss: torch.Tensor, params: tp.Iterable[torch.nn.Parameter]) -> torch.Tensor:
    """Return the loss, connected to `params`: its backward pass gives a gradient of zeros to those it does not depend on."""
    return _Touch.apply(loss, *params)
