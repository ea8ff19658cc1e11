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
import collections
import gc
import typing as tp
import weakref

import torch
from torch import nn
from torch.nn import functional as F

from ..modules.attention import attend
from ..modules.context import Context, Full
from ..modules.guidance import for_branches
from ..modules.tokens import gather_frames
from .cuda_graphs import CudaGraphs
from .kernels import layer_functions
from .layers import add
from .linear import LinearLayer, LinearWeights, layer_dtype, prepare_linear
from .text_attention import TextAttention, prepare_text_attention
from .text_cache import TextCache
from .weights import LayerWeights, ModelWeights, Norm, read_weights

_TEXT_ALIGN = 64        # On CUDA, texts are padded to a multiple of this, so that one length is captured for nearly all.
_engines: "weakref.WeakKeyDictionary[nn.Module, tuple[tp.Hashable, Engine]]" = weakref.WeakKeyDictionary()


class _Layer:
    def __init__(self, weights: LayerWeights, precision: str, dtype: torch.dtype) -> None:
        def ready(linear: tp.Optional[LinearWeights], activation: str = "none") -> tp.Any:
            return None if linear is None else prepare_linear(linear, precision, dtype, activation)

        self.weights = weights
        self.qkv: LinearLayer = ready(weights.qkv)
        self.out: LinearLayer = ready(weights.out)
        self.attend_to_text: tp.Optional[TextAttention] = None if weights.cross_q is None else prepare_text_attention(
            weights.cross_q, precision, dtype)
        self.cross_kv: LinearLayer = ready(weights.cross_kv)
        self.cross_out: LinearLayer = ready(weights.cross_out)
        self.ff_in: LinearLayer = ready(weights.ff_in, weights.activation)
        self.ff_out: LinearLayer = ready(weights.ff_out)


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
        self.layers = [_Layer(layer, precision, dtype) for layer in weights.layers]
        head_precision = "int8" if precision == "int8" else "model"
        self.heads = [prepare_linear(head, head_precision, torch.float32) for head in weights.heads]
        self.cardinality = weights.heads[0].weight.shape[0]
        self.decoders: collections.OrderedDict[tp.Hashable, tp.Any] = collections.OrderedDict()   # See `static_decoding`.
        self.graphs = CudaGraphs(self.device)
        self.static = self.device.type != "cpu"     # Whether decoding runs in buffers of fixed shapes.
        self._positions: dict[int, torch.Tensor] = {}

    def positions(self, length: int) -> torch.Tensor:
        """Return the position embeddings, float32 [T, D]."""
        if length not in self._positions:
            self._positions[length] = self.weights.positions(length)
        return self._positions[length]

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

    def logits(self, tokens: torch.Tensor, text: TextCache, stage: int, both_branches: bool,
               frames: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
        """Predict codebook `stage`.

        Args:
            tokens: Long [B, K, T], the mask token where unknown.
            text: what the text contributes.
            stage: codebook to predict.
            both_branches: compute the unconditional branch too, below the conditional one.
            frames: frames to predict, Long [B, M]; None predicts all of them.
        Returns:
            Float32 logits [rows, M, card]; rows is B, or 2 B with both branches.
        """
        with torch.autocast(self.device.type, enabled=False):       # The engine chooses the layers' dtype.
            x, delta = self._run_layers(tokens, text, self.context(stage), both_branches, frames)
            norm = self.weights.out_norm
            return self.heads[stage](add(x, delta) if norm is None else self._add_norm(x, delta, norm, None, torch.float32))

    def _run_layers(self, tokens: torch.Tensor, text: TextCache, context: Context, both_branches: bool,
                    frames: tp.Optional[torch.Tensor]) -> tuple[torch.Tensor, tp.Optional[torch.Tensor]]:
        """Run all layers: tokens [B, K, T] -> float32 [rows, M, D], and what the last layer adds to it."""
        x = self.functions.embed(tokens, self.tables, self.positions(tokens.shape[-1]))        # [B, T, D]
        delta = constant = None
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            attended = self._self_attention(layer, self._add_norm(x, delta, layer.weights.norm, constant), context,
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

    def _self_attention(self, layer: _Layer, x: torch.Tensor, context: Context, frames: tp.Optional[torch.Tensor],
                        both_branches: bool) -> torch.Tensor:
        """Attend within the clip; [rows, T, D] -> [rows, T, D], or [rows, M, D] at some frames only."""
        q, k, v = self._heads(layer.qkv(x), 3)
        if frames is None:
            return _merge(attend(q, k, v, context, backend=self.backend))
        frames = for_branches(frames, both_branches)
        if isinstance(context.reduced(q.shape[2], k.shape[2]), Full):
            q = gather_frames(q.transpose(1, 2).flatten(2), frames).unflatten(-1, (q.shape[1], -1)).transpose(1, 2)
            return _merge(attend(q, k, v, Full(), backend=self.backend))
        return gather_frames(_merge(attend(q, k, v, context, backend=self.backend)), frames)

    def _cross_attention(self, i: int, x: torch.Tensor, delta: torch.Tensor, text: TextCache, both_branches: bool
                         ) -> tuple[torch.Tensor, tp.Optional[torch.Tensor]]:
        """Add `delta` to `x` and attend to the text. Returns what to add next: for the first rows, and for those after them.

        The first half of the rows is conditional; the second half, if `both_branches`, is unconditional.
        """
        layer, B = self.layers[i], x.shape[0] // (1 + both_branches)
        rows = B if text.unconditional or not both_branches else 2 * B
        normed = self._add_norm(x, delta, tp.cast(Norm, layer.weights.cross_norm))[:rows]
        keys, values = (y[:rows] for y in text.keys_values[i])
        assert layer.attend_to_text is not None
        attended = layer.attend_to_text(normed, keys, values, None if text.mask is None else text.mask[:rows])
        return layer.cross_out(attended), text.unconditional[i] if rows < x.shape[0] else None

    def _add_norm(self, x: torch.Tensor, delta: tp.Optional[torch.Tensor], norm: Norm,
                  constant: tp.Optional[torch.Tensor] = None, dtype: tp.Optional[torch.dtype] = None) -> torch.Tensor:
        return self.functions.add_norm(x, delta, norm.weight, norm.bias, norm.eps, dtype or self.dtype, constant)

    def _additive(self, mask: torch.Tensor) -> torch.Tensor:
        """Bool [rows, S] -> [rows, 1, 1, S]: 0 where True, -inf elsewhere."""
        return torch.zeros_like(mask, dtype=self.dtype).masked_fill(~mask, float("-inf"))[:, None, None]

    def _heads(self, x: torch.Tensor, parts: int) -> torch.Tensor:
        """[B, T, parts * D] -> [parts, B, H, T, d]."""
        return x.unflatten(-1, (parts, self.weights.num_heads, -1)).permute(2, 0, 3, 1, 4)


class Session:
    """The forward pass of one generation; this is a `guidance.Forward`."""

    def __init__(self, engine: Engine, text: TextCache) -> None:
        self.engine, self.text = engine, text

    def __call__(self, tokens: torch.Tensor, stage: int, frames: torch.Tensor, both_branches: bool) -> torch.Tensor:
        """Run `Engine.logits` under this generation's text."""
        return self.engine.logits(tokens, self.text, stage, both_branches, frames)


def engine_for(model: tp.Any, precision: str, dtype: torch.dtype) -> Engine:
    """Return the model's engine; it is built again if weights, precision or dtype have changed since the last call.

    Args:
        model: a `MagnetLMModel`, or any model with its `position_embeddings(T)` and `context(stage)`.
        precision: see `linear.prepare_linear`.
        dtype: dtype of the linear layers if the precision is `model`.
    Raises:
        UnsupportedModel: the model has a part that the fast path does not support.
        ValueError: the precision is not available on this device.
    """
    key = (precision, dtype, model.subcodes_context, *((p.data_ptr(), p._version) for p in model.parameters()))
    kept = _engines.get(model)
    if kept is None or kept[0] != key:
        device = model.emb[0].weight.device
        if precision == "float16" and device.type == "cpu":
            raise ValueError("precision=float16 is slow on a CPU; set precision=bfloat16, int8 or model")
        proxy = weakref.proxy(model)
        kept = (key, Engine(read_weights(model), lambda stage: proxy.context(stage), precision, dtype,
                            model.attention_backend))
        _engines[model] = kept
    return kept[1]


def release(model: nn.Module) -> None:
    """Free the model's engine: prepared weights and captured graphs. The next generation builds it again."""
    if _engines.pop(model, None) is not None:
        gc.collect()                        # The engine and its static decoders refer to each other.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()        # The memory of a graph can only be reused after this.


def _merge(x: torch.Tensor) -> torch.Tensor:
    """[B, H, T, d] -> [B, T, H * d]."""
    return x.transpose(1, 2).flatten(2)
