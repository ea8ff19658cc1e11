"""Reads the weights of a model built like AudioCraft's `LMModel` for the engine, or says why it cannot serve it."""
import typing as tp
import weakref

import torch
from torch import nn
from torch.nn import functional as F

from .forward import Engine, LayerWeights, ModelWeights, Norm
from .linear import Linear

_engines: "weakref.WeakKeyDictionary[nn.Module, tuple[tp.Hashable, Engine]]" = weakref.WeakKeyDictionary()


class NotLean(ValueError):
    """The engine does not know how to compute this model; the message says which part."""


def engine_for(model: tp.Any, precision: str, dtype: torch.dtype) -> Engine:
    """The model's engine, made anew where weights, precision or dtype have changed since the last time.

    Args:
        model: a `MagnetLMModel`; offers `position_embeddings(T)` and `context(stage)`.
        precision: see `products.prepare`.
        dtype: of the matrix products where the precision is `model`.
    Raises:
        NotLean: the model has a part that the engine does not know.
        ValueError: the precision cannot be had on this device.
    """
    key = (precision, dtype, model.subcodes_context, *((p.data_ptr(), p._version) for p in model.parameters()))
    kept = _engines.get(model)
    if kept is None or kept[0] != key:
        device = model.emb[0].weight.device
        if precision == "float16" and device.type == "cpu":
            raise ValueError("precision=float16 is slow on a CPU; set precision=bfloat16, int8 or model")
        me = weakref.proxy(model)
        kept = (key, Engine(read_weights(model), lambda stage: me.context(stage), precision, dtype,
                            model.attention_backend))
        _engines[model] = kept
    return kept[1]


def read_weights(model: tp.Any) -> ModelWeights:
    """The weights, not copied where they need no change.

    Raises:
        NotLean: as above.
    """
    _refuse(model)
    weights = [_layer(layer) for layer in model.transformer.layers]
    me = weakref.proxy(model)
    return ModelWeights(embeddings=[emb.weight.detach() for emb in model.emb],
                        positions=lambda length: me.position_embeddings(length), layers=weights,
                        out_norm=None if model.out_norm is None else _norm(model.out_norm),
                        heads=[_linear(head.weight, head.bias) for head in model.linears],
                        num_heads=model.transformer.layers[0].self_attn.num_heads)


def _refuse(model: tp.Any) -> None:
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
        "transformer_lm.attention_as_float32 with 16-bit weights": half and any(a.attention_as_float32 for a in attentions),
        "another norm than layer_norm": type(layer.norm1) is not nn.LayerNorm,
        "another activation than gelu and relu": layer.activation not in (F.gelu, F.relu),
        f"fuser.{'/'.join(fused)}": bool(fused),
    }
    found = [reason for reason, there in reasons.items() if there]
    if found:
        raise NotLean("the lean engine does not serve " + ", ".join(found))


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


def _attention(attention: tp.Any) -> tuple[Linear, Linear]:
    holder = attention if attention.custom else attention.mha
    return (_linear(holder.in_proj_weight, holder.in_proj_bias), _linear(holder.out_proj.weight, holder.out_proj.bias))


def _scaled(linear: Linear, scale: tp.Any) -> Linear:
    return linear if isinstance(scale, nn.Identity) else linear.scaled(scale.scale.detach())


def _linear(weight: torch.Tensor, bias: tp.Optional[torch.Tensor]) -> Linear:
    return Linear(weight.detach(), None if bias is None else bias.detach())


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(norm.weight.detach(), norm.bias.detach(), norm.eps)
