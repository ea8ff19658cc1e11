"""How sure the model was: scores that decide what is masked again (paper, section 3.1). Higher is less sure."""
import torch
from torch.nn import functional as F

KEEP = -1e4     # score of what must not be masked again


def chunk_scores(probs: torch.Tensor, span_len: int, how: str) -> torch.Tensor:
    """Scores of non-overlapping spans.

    Args:
        probs: probability of each sampled token, [B, T].
        span_len: frames in a span; the last one may be shorter.
        how: `max`, 1 - the largest probability of the span; `prod`, the sum of -log p.
    Returns:
        [B, ceil(T / span_len)].
    """
    if how == "max":
        return 1 - _chunks(probs, span_len, 0.0).amax(dim=-1)
    return _chunks(-probs.log(), span_len, 0.0).sum(dim=-1)


def any_in_chunk(flags: torch.Tensor, span_len: int) -> torch.Tensor:
    """Whether any frame of each span is set: Bool [B, T] -> Bool [B, ceil(T / span_len)]."""
    return _chunks(flags, span_len, False).any(dim=-1)


def _chunks(x: torch.Tensor, span_len: int, fill: float) -> torch.Tensor:
    """[B, T] -> [B, chunks, span_len], the missing frames of the last chunk filled."""
    return F.pad(x, (0, -x.shape[-1] % span_len), value=fill).unflatten(-1, (-1, span_len))
