"""Bootstrap intervals of means over seeds and clips."""
from __future__ import annotations

import torch

DRAWS, LEVEL = 2000, 0.95


def mean_interval(values: torch.Tensor) -> list[float]:
    """Compute a mean and its 95% bootstrap interval: [seeds, clips] -> [mean, low, high].

    Seeds and clips are resampled independently of one another, because the same clip is edited with every seed. The draws
    are always the same ones.

    Raises:
        ValueError: the shape is wrong, or values are not finite.
    """
    if values.dim() != 2 or not values.numel() or not values.isfinite().all():
        raise ValueError(f"values {list(values.shape)} must be finite and have the shape [seeds, clips]")
    values = values.double().cpu()
    generator = torch.Generator().manual_seed(0)
    seeds, clips = (torch.randint(count, (DRAWS, count), generator=generator) for count in values.shape)
    means = values[seeds[:, :, None], clips[:, None, :]].mean((1, 2))                           # [DRAWS]
    low, high = means.quantile(torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)).tolist()
    return [float(values.mean()), low, high]
