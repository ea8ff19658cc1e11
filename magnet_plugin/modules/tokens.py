"""Small operations on token tensors [B, K, T] and on what models predict for their frames."""
import torch


def gather_frames(values: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Select frames of each sample.

    Args:
        values: one vector per frame, [B, T, C].
        frames: frame indices, Long [B, M].
    Returns:
        [B, M, C].
    """
    return values.gather(1, frames[..., None].expand(-1, -1, values.shape[-1]))


def replace_codebook(tokens: torch.Tensor, stage: int, codes: torch.Tensor) -> torch.Tensor:
    """Return a copy of `tokens` [B, K, T] whose codebook `stage` is `codes` [B, T]."""
    return torch.cat([tokens[:, :stage], codes[:, None], tokens[:, stage + 1:]], dim=1)
