"""What a text contributes to the layers; it stays the same during a generation."""
import dataclasses
import typing as tp

import torch


@dataclasses.dataclass(frozen=True)
class TextCache:
    """What the text of a generation contributes to each layer.

    Attributes:
        keys_values: keys and values of the cross-attention, [2, rows, H, S, d] per layer; empty without cross-attention.
        unconditional: what cross-attention adds in the unconditional branch, [B, 1, D] per layer; empty if it is computed
            like that of the conditional branch.
        mask: added to the scores of the S text positions, [rows, 1, 1, S]: 0, or -inf for padding; None without padding.
            It is not boolean, because PyTorch would convert that in every layer.
    """
    keys_values: tp.Sequence[torch.Tensor] = ()
    unconditional: tp.Sequence[torch.Tensor] = ()
    mask: tp.Optional[torch.Tensor] = None

    def tensors(self) -> list[torch.Tensor]:
        """All tensors in a fixed order, for `rebuilt`."""
        return [*self.keys_values, *self.unconditional, *([] if self.mask is None else [self.mask])]

    def rebuilt(self, tensors: tp.Sequence[torch.Tensor]) -> "TextCache":
        """Return the same cache made of other tensors, such as copies of its own."""
        first, second = len(self.keys_values), len(self.keys_values) + len(self.unconditional)
        return TextCache(tensors[:first], tensors[first:second], None if self.mask is None else tensors[second])

    def clone(self) -> "TextCache":
        """Return a copy with tensors of its own."""
        return self.rebuilt([x.clone() for x in self.tensors()])

    def copy_(self, other: "TextCache") -> None:
        """Take over the values of a cache with the same shapes."""
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine.copy_(theirs)
