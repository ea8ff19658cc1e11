"""The fast path: a forward pass for decoding that only computes what the next tokens need, with the model's own weights.

Compared with the model's own forward pass, the reference path, it omits
  - the heads of other stages, and frames that are not predicted: the last layer's feed-forward network, its
    cross-attention and the head only run on the requested frames;
  - the keys and values of the text, which stay the same during a generation;
  - the cross-attention of the unconditional branch if all of its keys are equal: any average of equal values is that value;
  - the first layer's self-attention in one of the two guidance branches, whose inputs are still equal;
  - the unconditional branch itself if it is not requested.
The results are exact up to the order of floating-point sums. Linear layers and attention compute in the dtype that the
reference path has under autocast; embeddings, positions, the sums over layers, norms and heads stay in float32.
"""
import copy
import typing as tp
import weakref

import torch
from torch.nn import functional as F

from ..modules.attention import attend
from ..modules.context import Context, Full
from ..modules.guidance import for_branches
from ..modules.tokens import gather_frames
from .cuda_graphs import CudaGraphs
from .kept import KINDS, Kept
from .kernels import layer_functions
from .kv_cache import AddedMask, CachedColumns, KVCache
from .layers import add
from .linear import layer_dtype, prepare_linear
from .prepared_layer import PreparedLayer
from .text_cache import TextCache
from .weights import ModelWeights, Norm

_TEXT_ALIGN = 64        # On CUDA, texts are padded to a multiple of this, so that one length is captured for nearly all.


class Engine:
    """The prepared weights of a model; `session` creates the forward pass of one generation.

    Args:
        weights: weights of the model.
        context: maps a stage to its attention context.
        precision: dtype of the linear layers, see `linear.prepare_linear`.
        dtype: dtype of the linear layers if the precision is `model`.
        backend: backend of self-attention, see `attention.attend`.
    """

    def __init__(self, weights: ModelWeights, context: tp.Callable[[int], Context], precision: str = "model",
                 dtype: torch.dtype = torch.float32, backend: str = "auto") -> None:
        self.weights, self.context, self.backend = weights, context, backend
        self.device = weights.embeddings[0].device
        self.dtype = layer_dtype(precision, dtype)
        self.functions = layer_functions(self.device)
        self.tables = torch.stack(list(weights.embeddings)) if self.device.type == "cuda" else weights.embeddings
        self.layers = [PreparedLayer(layer, precision, dtype) for layer in weights.layers]
        head_precision = "int8" if precision == "int8" else "model"
        self.heads = [prepare_linear(head, head_precision, torch.float32) for head in weights.heads]
        self.cardinality = weights.heads[0].weight.shape[0]
        self.decoders, self._caches = Kept(KINDS), Kept(KINDS)          # For `Session.kept` and `kv_cache`.
        self.graphs = CudaGraphs(self.device)
        self.static = self.device.type != "cpu"     # Whether decoding runs in buffers of fixed shapes.
        self._positions: dict[int, torch.Tensor] = {}

    def positions(self, length: int) -> torch.Tensor:
        """Return the position embeddings, float32 [T, D]."""
        if length not in self._positions:
            self._positions[length] = self.weights.positions(length)
        return self._positions[length]

    def kv_cache(self, batch: int, rows: int, columns: int) -> KVCache:
        """Return a KV cache, see `KVCache`. Where buffers are static it is kept, and columns are a multiple of eight."""
        heads, width = self.weights.num_heads, self.weights.embeddings[0].shape[1]

        def build() -> KVCache:
            return KVCache(len(self.layers), batch, rows, heads, columns, width // heads, self.dtype, self.device)

        if not self.static:
            return build()
        columns = -(-columns // 8) * 8          # As CUDA kernels require of masks.
        return self._caches.find((batch, rows, columns), build)

    def session(self, source: tp.Optional[torch.Tensor], unconditional: tp.Optional[torch.Tensor] = None,
                mask: tp.Optional[torch.Tensor] = None) -> "Session":
        """Create the forward pass of one generation.

        Args:
            source: what the conditional branch attends to, [B, S, D]; None without cross-attention.
            unconditional: the same for the unconditional branch, [B, S, D].
            mask: positions that a row attends to, Bool [rows, S], the unconditional rows last; None means all.
        """
        return Session(self, TextCache() if source is None else self._text_cache(source, unconditional, mask))

    def _text_cache(self, source: torch.Tensor, unconditional: tp.Optional[torch.Tensor], mask: tp.Optional[torch.Tensor]
                    ) -> TextCache:
        constant = unconditional is not None and bool((unconditional == unconditional[:, :1]).all())
        if unconditional is not None and not constant:
            source = torch.cat([source, unconditional])
        added_mask = None if mask is None else self._additive(mask[:len(source)])
        if self.device.type == "cuda":
            extra = -source.shape[1] % _TEXT_ALIGN
            if added_mask is None:
                added_mask = source.new_zeros(len(source), 1, 1, source.shape[1], dtype=self.dtype)
            added_mask = F.pad(added_mask, (0, extra), value=float("-inf"))
            source = F.pad(source, (0, 0, 0, extra))
        keys_values, added = [], []
        for layer in self.layers:
            keys_values.append(self._heads(layer.cross_kv(source), 2).contiguous())
            if constant:
                assert unconditional is not None
                value = layer.cross_kv(unconditional[:, :1]).chunk(2, dim=-1)[1]
                added.append(layer.cross_out(value))
        return TextCache(keys_values, added, added_mask)

    def hidden(self, tokens: torch.Tensor, text: TextCache, context: Context, both_branches: bool,
               frames: tp.Optional[torch.Tensor] = None, positions: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
        """Run embeddings, layers and final norm.

        Args:
            tokens: Long [B, K, T], the mask token where unknown.
            text: what the text contributes.
            context: which frames attend to which.
            both_branches: compute the unconditional branch too, below the conditional one.
            frames: the frames to return, Long [B, M]; None returns all of them.
            positions: position embeddings of the frames, float32 [T, D]; by default those of frames 0 to T - 1.
        Returns:
            Float32 [rows, M, D]; rows is B, or 2 B with both branches.
        """
        with torch.autocast(self.device.type, enabled=False):       # The engine chooses the layers' dtype.
            positions = self.positions(tokens.shape[-1]) if positions is None else positions
            x, delta = self._run_layers(tokens, positions, text, context, both_branches, frames)
            norm = self.weights.out_norm
            return add(x, delta) if norm is None else self._add_norm(x, delta, norm, None, torch.float32)

    def head(self, x: torch.Tensor, stage: int) -> torch.Tensor:
        """Predict codebook `stage` from the result of `hidden`: [rows, M, D] -> float32 logits [rows, M, card]."""
        with torch.autocast(self.device.type, enabled=False):
            return self.heads[stage](x)

    def _run_layers(self, tokens: torch.Tensor, positions: torch.Tensor, text: TextCache, context: Context,
                    both_branches: bool, frames: tp.Optional[torch.Tensor]
                    ) -> tuple[torch.Tensor, tp.Optional[torch.Tensor]]:
        """Run all layers: tokens [B, K, T] -> float32 [rows, M, D], and what the last layer adds to it."""
        x = self.functions.embed(tokens, self.tables, positions)                               # [B, T, D]
        delta = constant = None
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            attended = self._self_attention(i, self._add_norm(x, delta, layer.weights.norm, constant), context,
                                            frames if i == last else None, both_branches and i > 0)
            if i == last and frames is not None:
                x = gather_frames(x, for_branches(frames, both_branches and i > 0))
            delta, constant = layer.out(attended), None
            if i == 0 and both_branches:
                x, delta = x.repeat(2, 1, 1), delta.repeat(2, 1, 1)
            if text.keys_values:
                delta, constant = self._cross_attention(i, x, delta, text, both_branches)
            delta, constant = layer.ff_out(layer.ff_in(self._add_norm(x, delta, layer.weights.ff_norm, constant))), None
        return x, delta

    def _self_attention(self, i: int, x: torch.Tensor, context: Context, frames: tp.Optional[torch.Tensor],
                        both_branches: bool) -> torch.Tensor:
        """Attend within the clip; [rows, T, D] -> [rows, T, D], or [rows, M, D] at some frames only."""
        heads = self._heads(self.layers[i].qkv(x), 3)
        q, k, v = heads
        if isinstance(context, CachedColumns):
            k, v = context.extend(i, heads[1:])
            context = context.context
        if frames is None:
            return _merge(self._attend(q, k, v, context))
        frames = for_branches(frames, both_branches)
        if isinstance(context.reduced(q.shape[2], k.shape[2]), Full):
            q = gather_frames(q.transpose(1, 2).flatten(2), frames).unflatten(-1, (q.shape[1], -1)).transpose(1, 2)
            return _merge(self._attend(q, k, v, Full()))
        return gather_frames(_merge(self._attend(q, k, v, context)), frames)

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: Context) -> torch.Tensor:
        if isinstance(context, AddedMask):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=context.mask)
        return attend(q, k, v, context, backend=self.backend)

    def _cross_attention(self, i: int, x: torch.Tensor, delta: torch.Tensor, text: TextCache, both_branches: bool
                         ) -> tuple[torch.Tensor, tp.Optional[torch.Tensor]]:
        """Add `delta` to `x` and attend to the text. Returns what to add next: for the first rows, and for those after them.

        The first half of the rows is conditional; the second half, if `both_branches`, is unconditional.
        """
        layer, B = self.layers[i], x.shape[0] // (1 + both_branches)
        rows = B if text.unconditional or not both_branches else 2 * B
        normed = self._add_norm(x, delta, tp.cast(Norm, layer.weights.cross_norm), rows=rows)
        keys, values = (y[:rows] for y in text.keys_values[i])
        assert layer.attend_to_text is not None
        attended = layer.attend_to_text(normed, keys, values, None if text.mask is None else text.mask[:rows])
        return layer.cross_out(attended), text.unconditional[i] if rows < x.shape[0] else None

    def _add_norm(self, x: torch.Tensor, delta: tp.Optional[torch.Tensor], norm: Norm,
                  constant: tp.Optional[torch.Tensor] = None, dtype: tp.Optional[torch.dtype] = None,
                  rows: tp.Optional[int] = None) -> torch.Tensor:
        return self.functions.add_norm(x, delta, norm.weight, norm.bias, norm.eps, dtype or self.dtype, constant, rows)

    def _additive(self, mask: torch.Tensor) -> torch.Tensor:
        """Bool [rows, S] -> [rows, 1, 1, S]: 0 where True, -inf elsewhere."""
        return torch.zeros_like(mask, dtype=self.dtype).masked_fill(~mask, float("-inf"))[:, None, None]

    def _heads(self, x: torch.Tensor, parts: int) -> torch.Tensor:
        """[B, T, parts * D] -> [parts, B, H, T, d]."""
        return x.unflatten(-1, (parts, self.weights.num_heads, -1)).permute(2, 0, 3, 1, 4)


S = tp.TypeVar("S", bound="Session")


class Session:
    """The forward pass of one generation; this is a `guidance.Forward`."""
    kind: tp.Hashable = ()          # What graphs of this pass depend on, besides shapes of the clip and of the text.

    def __init__(self, engine: Engine, text: TextCache) -> None:
        self.engine, self.text = engine, text

    @property
    def decoders(self) -> Kept:
        """What `kept` has built. Its owner, the engine, must live as long as the session."""
        return self.engine.decoders

    def kept(self, key: tp.Hashable, build: tp.Callable[[], tp.Any]) -> tp.Any:
        """Return the buffers and graphs that are kept under this key, for texts of this shape, or build them."""
        return self.decoders.find((key, self.kind, *(x.shape for x in self.text.tensors())), build)

    def to_keep(self: S) -> S:
        """Return a copy for what `kept` builds: its text can be overwritten, and it does not keep its owner alive."""
        copied = copy.copy(self)
        copied.text, copied.engine = self.text.clone(), weakref.proxy(self.engine)
        return copied

    def __call__(self, tokens: torch.Tensor, stage: int, frames: torch.Tensor, both_branches: bool) -> torch.Tensor:
        return self.logits(tokens, stage, both_branches, frames)

    def logits(self, tokens: torch.Tensor, stage: int, both_branches: bool, frames: tp.Optional[torch.Tensor] = None
               ) -> torch.Tensor:
        """Predict codebook `stage`, see `Engine.hidden`: float32 logits [rows, M, card]."""
        engine = self.engine
        return engine.head(engine.hidden(tokens, self.text, engine.context(stage), both_branches, frames), stage)


def _merge(x: torch.Tensor) -> torch.Tensor:
    """[B, H, T, d] -> [B, T, H * d]."""
    return x.transpose(1, 2).flatten(2)
