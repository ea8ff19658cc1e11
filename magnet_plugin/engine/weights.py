"""Reads the weights of a model built like AudioCraft's `LMModel` for the fast path, or reports what it does not support."""
import dataclasses
import typing as tp
import weakref

import torch
from torch import nn
from torch.nn import functional as F

from ..modules.context import Context
from .linear import LinearWeights


class UnsupportedModel(ValueError):
    """The fast path does not support this model; the message names the part."""


@dataclasses.dataclass(frozen=True)
class Norm:
    """Layer norm over D channels; the tensors are float32."""
    weight: torch.Tensor
    bias: torch.Tensor
    eps: float


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """A pre-norm layer. `qkv` is [3 D, D]; `cross_*` are None without cross-attention; layer scales are folded in."""
    norm: Norm
    qkv: LinearWeights
    out: LinearWeights
    ff_norm: Norm
    ff_in: LinearWeights
    ff_out: LinearWeights
    activation: str
    cross_norm: tp.Optional[Norm] = None
    cross_q: tp.Optional[LinearWeights] = None
    cross_kv: tp.Optional[LinearWeights] = None
    cross_out: tp.Optional[LinearWeights] = None


@dataclasses.dataclass(frozen=True)
class ModelWeights:
    """`embeddings`: K tables [card + 1, D]; `positions`: maps T to float32 [T, D]; `heads`: K layers [card, D]."""
    embeddings: tp.Sequence[torch.Tensor]
    positions: tp.Callable[[int], torch.Tensor]
    layers: tp.Sequence[LayerWeights]
    out_norm: tp.Optional[Norm]
    heads: tp.Sequence[LinearWeights]
    num_heads: int


class Source(tp.Protocol):
    """What an engine reads next to a model's weights. A `MagnetLMModel` is its own source.

    Attributes:
        subcodes_context: whatever else, besides weights, `context` depends on.
        attention_backend: backend of self-attention, see `attention.attend`.
    """
    subcodes_context: int
    attention_backend: str

    def position_embeddings(self, length: int) -> torch.Tensor:
        """What is added to the embeddings of frames 0 to length - 1, float32 [T, dim]."""

    def context(self, stage: int) -> Context:
        """Which frames attend to which at this stage."""


def read_weights(model: tp.Any, source: tp.Optional[Source] = None) -> ModelWeights:
    """Read the weights of a model; they are only copied where they change.

    Args:
        model: a model built like AudioCraft's `LMModel`.
        source: its positions, see `engines.engine_for`.
    Raises:
        UnsupportedModel: the model has a part that the fast path does not support.
    """
    _check_supported(model)
    weights = [_layer(layer) for layer in model.transformer.layers]
    source = source or weakref.proxy(model)
    return ModelWeights(embeddings=[emb.weight.detach() for emb in model.emb],
                        positions=lambda length: source.position_embeddings(length), layers=weights,
                        out_norm=None if model.out_norm is None else _norm(model.out_norm),
                        heads=[_linear(head.weight, head.bias) for head in model.linears],
                        num_heads=model.transformer.layers[0].self_attn.num_heads)


def _check_supported(model: tp.Any) -> None:
    layer = model.transformer.layers[0]
    attentions = [layer.self_attn] + ([] if layer.cross_attention is None else [layer.cross_attention])
    half = model.emb[0].weight.dtype != torch.float32
    fused = [how for how in ("sum", "prepend", "input_interpolate") if model.fuser.fuse2cond.get(how)]
    reasons = {
        "its weights are sharded (fsdp)": model._fsdp is not None,
        "transformer_lm.norm_first=false": not layer.norm_first,
        f"transformer_lm.positional_embedding={model.transformer.positional_embedding}": model.transformer.rope is not None,
        "transformer_lm.qk_layer_norm": any(attention.qk_layer_norm for attention in attentions),
        "transformer_lm.kv_repeat": any(attention.kv_repeat > 1 for attention in attentions),
        "transformer_lm.past_context": layer.self_attn.past_context is not None,
        "transformer_lm.attention_as_float32 with 16-bit weights": half and any(a.attention_as_float32 for a in attentions),
        "a norm other than layer_norm": type(layer.norm1) is not nn.LayerNorm,
        "an activation other than gelu and relu": layer.activation not in (F.gelu, F.relu),
        f"fuser.{'/'.join(fused)}": bool(fused),
    }
    found = [reason for reason, present in reasons.items() if present]
    if found:
        raise UnsupportedModel("the fast path does not support " + ", ".join(found))


def _layer(layer: tp.Any) -> LayerWeights:
    qkv, out = _attention(layer.self_attn)
    cross: dict[str, tp.Any] = {}
    if layer.cross_attention is not None:
        projections, cross_out = _attention(layer.cross_attention)
        width = cross_out.weight.shape[0]
        query, keys_values = projections.split([width, 2 * width])
        cross = {"cross_norm": _norm(layer.norm_cross), "cross_q": query, "cross_kv": keys_values,
                 "cross_out": _scaled(cross_out, layer.layer_scale_cross)}
    return LayerWeights(norm=_norm(layer.norm1), qkv=qkv, out=_scaled(out, layer.layer_scale_1),
                        ff_norm=_norm(layer.norm2), ff_in=_linear(layer.linear1.weight, layer.linear1.bias),
                        ff_out=_scaled(_linear(layer.linear2.weight, layer.linear2.bias), layer.layer_scale_2),
                        activation="gelu" if layer.activation is F.gelu else "relu", **cross)


def projections_of(attention: tp.Any) -> tp.Any:
    """Return the module with the packed projections of AudioCraft's attention: itself, or the torch module that it wraps."""
    return attention if attention.custom else attention.mha


def _attention(attention: tp.Any) -> tuple[LinearWeights, LinearWeights]:
    holder = projections_of(attention)
    return (_linear(holder.in_proj_weight, holder.in_proj_bias), _linear(holder.out_proj.weight, holder.out_proj.bias))


def _scaled(linear: LinearWeights, scale: tp.Any) -> LinearWeights:
    return linear if isinstance(scale, nn.Identity) else linear.scaled(scale.scale.detach())


def _linear(weight: torch.Tensor, bias: tp.Optional[torch.Tensor]) -> LinearWeights:
    return LinearWeights(weight.detach(), None if bias is None else bias.detach())


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(norm.weight.detach().float(), norm.bias.detach().float(), norm.eps)
