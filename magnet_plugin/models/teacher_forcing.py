"""The sequence that an autoregressive model reads for known tokens, and the column that predicts each of them."""
import torch
from audiocraft.modules.codebooks_patterns import CodebooksPatternProvider


class TeacherForcing:
    """AudioCraft's pattern of codebooks for clips of one length, as indices that are computed once.

    Args:
        provider: the pattern.
        length: number of frames T.
        device: of the tokens.

    Attributes:
        columns: Long [K, T], the column whose output predicts the token.
    """

    def __init__(self, provider: CodebooksPatternProvider, length: int, device: torch.device) -> None:
        pattern = provider.get_pattern(length)
        nothing = torch.zeros(1, provider.n_q, length, dtype=torch.long, device=device)
        sequence, indices, _ = pattern.build_pattern_sequence(nothing, 0, keep_only_valid_steps=False)
        self._indices = indices                             # [K, S], into the flat tokens and a special one after them
        numbers = torch.arange(sequence.shape[-1], device=device).expand_as(sequence)[:, None].double()
        self.columns = pattern.revert_pattern_logits(numbers, -1.0, keep_only_valid_steps=False)[0][0, 0].long()

    def place(self, tokens: torch.Tensor, special: int) -> torch.Tensor:
        """Place tokens Long [B, K, T] into the sequence, Long [B, K, S]; `special` where there is none."""
        flat = torch.nn.functional.pad(tokens.flatten(1), (0, 1), value=special)
        return flat[:, self._indices]
