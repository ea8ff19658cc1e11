"""Keys and values of a sequence's columns, in buffers of a fixed size that are written in place.

Nothing grows while a sequence is decoded, so CUDA graphs can read and write the buffers.
"""
import dataclasses
import typing as tp

import torch

from ..modules.context import Context, Full
from .kept import KINDS, Kept


class KVCache:
    """The keys and values of all layers.

    The first layer has one row per sample: both branches of classifier-free guidance have the same inputs there.

    Args:
        layers: number of layers.
        batch: number of samples B.
        rows: B, or 2 B if the unconditional branch is computed too.
        heads: number of heads H.
        columns: number of columns S.
        width: channels d of a head.
        dtype: of the keys and values.
        device: of the keys and values.

    Attributes:
        layers: keys and values of each layer, [2, rows, H, S, d].
        decoders: what captured graphs of these buffers, see `Session.kept`.
    """

    def __init__(self, layers: int, batch: int, rows: int, heads: int, columns: int, width: int, dtype: torch.dtype,
                 device: torch.device) -> None:
        self.layers = [torch.zeros(2, batch if i == 0 else rows, heads, columns, width, dtype=dtype, device=device)
                       for i in range(layers)]
        self.decoders = Kept(KINDS)

    def clear(self) -> None:
        """Forget what the columns held. A value that is not finite would spoil scores even where a mask excludes it."""
        for keys_values in self.layers:
            keys_values.zero_()


@dataclasses.dataclass(frozen=True, eq=False)
class AddedMask(Context):
    """A context given as a mask that is added to the scores.

    Attributes:
        mask: 0, or -inf where a query does not attend to a key, of the queries' dtype: [1, 1, T_q or 1, T_k].
    """
    mask: torch.Tensor

    @staticmethod
    def of(context: Context, num_queries: int, num_keys: int, dtype: torch.dtype, device: torch.device) -> "AddedMask":
        """Convert another context. Rows begin at multiples of eight elements, as CUDA kernels require."""
        allowed = context.dense(num_queries, num_keys, device)
        padded = torch.zeros(*allowed.shape[:-1], -(-num_keys // 8) * 8, dtype=dtype, device=device)[..., :num_keys]
        return AddedMask(padded.masked_fill_(~allowed, float("-inf")))

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> torch.Tensor:
        return self.mask == 0


@dataclasses.dataclass(frozen=True, eq=False)
class CachedColumns(Context):
    """The context of columns whose keys and values are written to a cache, and which attend to columns of the cache.

    Attributes:
        cache: the cache.
        at: the first of these columns: a number, or, for a single column, Long [1] on the device.
        length: number of the cache's columns to attend to.
        context: which of them each column attends to.
    """
    cache: KVCache
    at: tp.Union[int, torch.Tensor]
    length: int
    context: Context = Full()

    def extend(self, layer: int, keys_values: torch.Tensor) -> torch.Tensor:
        """Write the keys and values of a layer, [2, rows, H, C, d]; return those to attend to, [2, rows, H, length, d].

        If there are fewer rows than in the cache, they are its first ones.
        """
        kept = self.cache.layers[layer][:, :keys_values.shape[1]]
        if isinstance(self.at, int):
            kept[:, :, :, self.at:self.at + keys_values.shape[3]] = keys_values
        else:
            kept.index_copy_(3, self.at, keys_values)
        return kept[:, :, :, :self.length]

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str | None = None) -> torch.Tensor:
        return self.context.dense(num_queries, num_keys, device)
