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

    def check(self, codebooks: int, cardinality: int) -> None:
        """Check the tokens for a model with this many codebooks and tokens. Synchronizes with the device.

        Raises:
            ValueError: shapes or dtypes are wrong, there is no sample or frame, or a known token is not one of the codec's.
        """
        shape = list(self.tokens.shape)
        if self.tokens.dim() != 3 or shape[1] != codebooks or not self.tokens.numel():
            raise ValueError(f"tokens must be [B, {codebooks}, T], with at least one sample and one frame, got {shape}")
        if self.known.shape != self.tokens.shape or self.known.dtype != torch.bool:
            raise ValueError(f"known must be Bool of the tokens' shape {shape}, got {self.known.dtype} of "
                             f"{list(self.known.shape)}")
        if self.tokens.dtype != torch.long:
            raise ValueError(f"tokens must be Long, got {self.tokens.dtype}")
        wrong = self.known & ((self.tokens < 0) | (self.tokens >= cardinality))
        if bool(wrong.any()):
            raise ValueError(f"the token {int(self.tokens[wrong][0])} is not one of the codec's, which are 0 to "
                             f"{cardinality - 1}; mark what is to be filled in as not known")

    def masked(self, mask_id: int) -> torch.Tensor:
        """The clip with the mask token wherever nothing is known, Long [B, K, T]."""
        return torch.where(self.known, self.tokens, mask_id)

    def most_free(self) -> list[int]:
        """For each codebook, the largest number of unknown frames that a sample has. May synchronize with the device."""
        return self.free if self.free is not None else (~self.known).sum(dim=-1).amax(dim=0).tolist()
