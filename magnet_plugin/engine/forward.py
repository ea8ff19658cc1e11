"""A lean forward pass for decoding: the same weights, only the work that the next tokens need.

Against the model's own forward pass it leaves out
  - heads of other stages, and positions that are not to be filled: the last layer's feed-forward network, its
    cross-attention and the head run on the asked positions alone;
  - keys and values of the text, which do not change within a generation;
  - the null branch's cross-attention, where all its keys are equal: every average of equal values is that value;
  - the first layer's self-attention in one of the two guidance branches, whose inputs are still the same;
  - the null branch altogether, where it is not asked for.
All of it is exact up to the order of floating-point sums. On CUDA the layers are recorded as graphs.
"""
import dataclasses
import typing as tp

import torch
from torch.nn import functional as F

from ..modules.attention import Context, Full, attend
from .cuda_graphs import Recorder, recorder_for
from .linear import Linear, Product, prepare

_TEXT_ALIGN = 16        # on CUDA texts are padded to a multiple of this, so that few lengths have to be recorded


@dataclasses.dataclass(frozen=True)
class Norm:
    """Layer norm over D channels."""
    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """A pre-norm layer. `qkv` [3 D, D]; `cross_*` are None without cross-attention; layer scales are in the weights."""
    norm: Norm
    qkv: Linear
    out: Linear
    ff_norm: Norm
    ff_in: Linear
    ff_out: Linear
    activation: str
    cross_norm: tp.Optional[Norm] = None
    cross_q: tp.Optional[Linear] = None
    cross_kv: tp.Optional[Linear] = None
    cross_out: tp.Optional[Linear] = None


@dataclasses.dataclass(frozen=True)
class ModelWeights:
    """`embeddings`: K of [card + 1, D]; `positions`: T -> [T, D]; `heads`: K of [card, D]."""
    embeddings: tp.Sequence[torch.Tensor]
    positions: tp.Callable[[int], torch.Tensor]
    layers: tp.Sequence[LayerWeights]
    out_norm: tp.Optional[Norm]
    heads: tp.Sequence[Linear]
    num_heads: int


class _Layer:
    def __init__(self, weights: LayerWeights, precision: str, dtype: torch.dtype) -> None:
        def product(linear: tp.Optional[Linear], activation: str = "none") -> tp.Any:
            return None if linear is None else prepare(linear, precision, dtype, activation)

        self.weights = weights
        self.qkv: Product = product(weights.qkv)
        self.out: Product = product(weights.out)
        self.cross_q: Product = product(weights.cross_q)
        self.cross_kv: Product = product(weights.cross_kv)
        self.cross_out: Product = product(weights.cross_out)
        self.ff_in: Product = product(weights.ff_in, weights.activation)
        self.ff_out: Product = product(weights.ff_out)


class Engine:
    """Weights made ready; `session` then serves one generation.

    Args:
        weights: of the model.
        context: stage -> which frames attend to which.
        precision: of the matrix products, see `products.prepare`.
        dtype: of the matrix products where the precision is `model`.
        backend: of self-attention, see `attention.attend`.
        recorder: how to record; by default CUDA graphs where there is CUDA.
    """

    def __init__(self, weights: ModelWeights, context: tp.Callable[[int], Context], precision: str = "model",
                 dtype: torch.dtype = torch.float32, backend: str = "auto", recorder: tp.Optional[Recorder] = None) -> None:
        self.weights, self.context, self.backend = weights, context, backend
        self.device = weights.embeddings[0].device
        self.layers = [_Layer(layer, precision, dtype) for layer in weights.layers]
        self.heads = [prepare(head, precision, dtype) for head in weights.heads]
        self.record = recorder or recorder_for(self.device)
        self.narrow = self.device.type == "cpu"     # shapes that change with the step; a recording needs fixed ones
        self._positions: dict[int, torch.Tensor] = {}

    def positions(self, length: int) -> torch.Tensor:
        """Position embeddings [T, D]."""
        if length not in self._positions:
            self._positions[length] = self.weights.positions(length)
        return self._positions[length]

    def session(self, source: tp.Optional[torch.Tensor], null_source: tp.Optional[torch.Tensor] = None) -> "Session":
        """Ready for one generation.

        Args:
            source: what the conditional branch attends to, [B, S, D]; None without cross-attention.
            null_source: the same for the null branch of guidance, [B, S, D].
        """
        return Session(self, source, null_source)


class Session:
    """Keys and values of one generation's text, and the forward pass."""

    def __init__(self, engine: Engine, source: tp.Optional[torch.Tensor], null_source: tp.Optional[torch.Tensor]) -> None:
        self.engine = engine
        self.text: list[torch.Tensor] = []          # per layer: keys and values [2, rows, H, S, d]
        self.null: list[torch.Tensor] = []          # per layer: what the null branch's cross-attention adds, [B, 1, D]
        self.text_mask: tp.Optional[torch.Tensor] = None
        if source is None:
            return
        constant = null_source is not None and bool((null_source == null_source[:, :1]).all())
        if null_source is not None and not constant:
            source = torch.cat([source, null_source])
        if engine.device.type == "cuda":
            extra = -source.shape[1] % _TEXT_ALIGN
            self.text_mask = torch.arange(source.shape[1] + extra, device=engine.device) < source.shape[1]
            self.text_mask = self.text_mask.view(1, 1, 1, -1)
            source = F.pad(source, (0, 0, 0, extra))
        for layer in engine.layers:
            self.text.append(self._heads(layer.cross_kv(source), 2).contiguous())
            if constant:
                assert null_source is not None
                value = layer.cross_kv(null_source[:, :1]).chunk(2, dim=-1)[1]
                self.null.append(layer.cross_out(value))

    def __call__(self, tokens: torch.Tensor, stage: int, positions: torch.Tensor, both: bool) -> torch.Tensor:
        """Logits of codebook `stage`.

        Args:
            tokens: Long [B, K, T], unknown ones the mask token.
            positions: frames to predict, Long [B, M].
            both: compute the null branch too, below the conditional one.
        Returns:
            [B, M, card], or [2 B, M, card].
        """
        with torch.autocast(self.engine.device.type, enabled=False):       # the products' dtype is the engine's to choose
            return self._logits(tokens, stage, positions, both)

    def _logits(self, tokens: torch.Tensor, stage: int, positions: torch.Tensor, both: bool) -> torch.Tensor:
        engine = self.engine
        if engine.narrow:
            x = self._layers(tokens, engine.context(stage), both, positions)
        else:
            context = engine.context(stage)
            fixed = [*self.text, *self.null] + ([] if self.text_mask is None else [self.text_mask])

            def layers(tokens: torch.Tensor, *text: torch.Tensor) -> torch.Tensor:
                return _with(self, text)._layers(tokens, context, both, None)

            x = engine.record((context, both, engine.backend), layers, tokens, *fixed)
            x = _rows(x, _twice(positions, both))
        if engine.weights.out_norm is not None:
            x = engine.weights.out_norm(x)
        return engine.heads[stage](x)

    def _layers(self, tokens: torch.Tensor, context: Context, both: bool, positions: tp.Optional[torch.Tensor]
                ) -> torch.Tensor:
        """[B, K, T] -> [rows, M, D], or [rows, T, D] where `positions` is None."""
        weights = self.engine.weights
        x = self.engine.positions(tokens.shape[-1]).to(weights.embeddings[0].dtype)
        for k, table in enumerate(weights.embeddings):
            x = x + F.embedding(tokens[:, k], table)                                   # [B, T, D]
        last = len(self.engine.layers) - 1
        for i, layer in enumerate(self.engine.layers):
            wanted = None if i < last or positions is None else _twice(positions, both and i > 0)
            x = self._self_attention(layer, x, context, wanted)
            if i == 0 and both:
                x = x.repeat(2, 1, 1)
            if self.text:
                self._cross_attention(i, x, both)
            x += layer.ff_out(layer.ff_in(layer.weights.ff_norm(x)))
        return x

    def _self_attention(self, layer: _Layer, x: torch.Tensor, context: Context, positions: tp.Optional[torch.Tensor]
                        ) -> torch.Tensor:
        q, k, v = self._heads(layer.qkv(layer.weights.norm(x)), 3)
        if positions is None:
            x += layer.out(_merge(attend(q, k, v, context, backend=self.engine.backend)))
            return x
        if isinstance(context.reduced(q.shape[2], k.shape[2]), Full):
            q = _rows(q.transpose(1, 2).flatten(2), positions).unflatten(-1, (q.shape[1], -1)).transpose(1, 2)
            out = _merge(attend(q, k, v, Full(), backend=self.engine.backend))
        else:
            out = _rows(_merge(attend(q, k, v, context, backend=self.engine.backend)), positions)
        return _rows(x, positions) + layer.out(out)

    def _cross_attention(self, i: int, x: torch.Tensor, both: bool) -> None:
        """Adds to `x` in place: the first half is conditional, the second, if `both`, is null."""
        layer, B = self.engine.layers[i], x.shape[0] // (1 + both)
        rows = B if self.null or not both else 2 * B
        part = x[:rows]
        keys, values = (y[:rows] for y in self.text[i])
        q = self._heads(layer.cross_q(tp.cast(Norm, layer.weights.cross_norm)(part)), 1)[0]
        part += layer.cross_out(_merge(F.scaled_dot_product_attention(q, keys, values, attn_mask=self.text_mask)))
        if both and self.null:
            x[B:] += self.null[i]

    def _heads(self, x: torch.Tensor, parts: int) -> torch.Tensor:
        """[B, T, parts * D] -> [parts, B, H, T, d]."""
        return x.unflatten(-1, (parts, self.engine.weights.num_heads, -1)).permute(2, 0, 3, 1, 4)


def _with(session: Session, text: tp.Sequence[torch.Tensor]) -> Session:
    """The session on other tensors for its text: a recording has buffers of its own."""
    other = object.__new__(Session)
    count = len(session.text)
    other.engine, other.text, other.null = session.engine, list(text[:count]), list(text[count:count + len(session.null)])
    other.text_mask = None if session.text_mask is None else text[-1]
    return other


def _merge(x: torch.Tensor) -> torch.Tensor:
    """[B, H, T, d] -> [B, T, H * d]."""
    return x.transpose(1, 2).flatten(2)


def _rows(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """[B, T, C] at positions [B, M] -> [B, M, C]."""
    return x.gather(1, positions[..., None].expand(-1, -1, x.shape[-1]))


def _twice(positions: torch.Tensor, both: bool) -> torch.Tensor:
    return positions.repeat(2, 1) if both else positions
