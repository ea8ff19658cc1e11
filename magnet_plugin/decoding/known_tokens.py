"""KnownTokens: the part of a clip that is fixed before decoding starts."""
import dataclasses
import typing as tp

import torch


@dataclasses.dataclass(frozen=True)
class KnownTokens:
    """Tokens that decoding keeps. A prompt is the case where the first frames of every codebook are known.

    Attributes:
        tokens: Long [B, K, T]; only read where `known` is True.
        known: Bool [B, K, T].
        free: result of `most_free`, if it is known beforehand; this spares a synchronization with the device.
    """
    tokens: torch.Tensor
    known: torch.Tensor
    free: tp.Optional[list[int]] = None

    @staticmethod
    def from_prompt(prompt: torch.Tensor, length: int) -> "KnownTokens":
        """Start a clip of `length` frames with the frames `prompt`, Long [B, K, P].

        Raises:
            ValueError: the prompt leaves no frame to decode.
        """
        B, K, P = prompt.shape
        if length <= P:
            raise ValueError(f"the prompt has {P} frames and the clip {length}: nothing is left to decode; shorten the "
                             "prompt or raise duration (max_gen_len)")
        tokens = torch.zeros(B, K, length, dtype=torch.long, device=prompt.device)
        tokens[..., :P] = prompt
        known = torch.zeros_like(tokens, dtype=torch.bool)
        known[..., :P] = True
        return KnownTokens(tokens, known, [length - P] * K)

    def masked(self, mask_id: int) -> torch.Tensor:
        """The clip with the mask token wherever nothing is known, Long [B, K, T]."""
        return torch.where(self.known, self.tokens, mask_id)

    def most_free(self) -> list[int]:
        """For each codebook, the largest number of unknown frames that a sample has. May synchronize with the device."""
        return self.free if self.free is not None else (~self.known).sum(dim=-1).amax(dim=0).tolist()
