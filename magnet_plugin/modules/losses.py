"""The training objective: cross entropy of the masked tokens of one codebook (section 3.1)."""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

_IGNORED = -100


def masked_cross_entropy(logits: Tensor, targets: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Compute the mean cross entropy over the masked positions of the whole batch.

    The softmax is computed in float32, under autocast too. Positions outside of the mask do not affect value or gradient,
    whatever their logits (NaN where a delay pattern has no prediction) and targets (padding may hold the mask token, which
    has no logit). The number of targets stays on the device, without synchronizing with a GPU.

    Args:
        logits: [..., T, card]: [B, T, card] for one stage; [B, K, T, card] if targets are in several codebooks, as those of
            a hybrid model are.
        targets: true codes, Long [..., T], within [0, card) wherever `mask` is True.
        mask: which positions are targets, Bool [..., T].
        count: what the sum is divided by if this is part of a larger batch; None uses the number of targets. It need not
            be an integer (see `distributed.reduction.mean_over_ranks`).
    Returns:
        Float32 scalar in nats. With nothing masked it is zero, with a gradient of zeros.
    Raises:
        ValueError: the shapes do not fit.
    """
    if logits.shape[:-1] != targets.shape or mask.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} need targets and mask of shape {tuple(logits.shape[:-1])}, "
                         f"got {tuple(targets.shape)} and {tuple(mask.shape)}")
    labels = targets.masked_fill(~mask, _IGNORED)
    # Ignoring a label is not enough: the softmax of a non-finite logit makes the gradient NaN.
    logits = logits.masked_fill(~mask.unsqueeze(-1), 0.0)
    total = F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), ignore_index=_IGNORED, reduction="sum")
    count = mask.sum() if count is None else count
    return total / count.masked_fill(count == 0, 1)
