"""The engine of each model, which is built once and kept as long as the model exists."""
import typing as tp
import weakref

import torch
from torch import nn

from .forward import Engine
from .weights import Source, read_weights

_engines: "weakref.WeakKeyDictionary[nn.Module, tuple[tp.Hashable, Engine]]" = weakref.WeakKeyDictionary()


def engine_for(model: tp.Any, precision: str, dtype: torch.dtype, source: tp.Optional[Source] = None) -> Engine:
    """Return the model's engine; it is built again if weights, precision or dtype have changed since the last call.

    Args:
        model: a model built like AudioCraft's `LMModel`.
        precision: see `linear.prepare_linear`.
        dtype: dtype of the linear layers if the precision is `model`.
        source: its positions and contexts; by default the model itself. It must not keep the model alive.
    Raises:
        UnsupportedModel: the model has a part that the fast path does not support.
        ValueError: the precision is not available on this device.
    """
    source = source or weakref.proxy(model)
    key = (precision, dtype, source.subcodes_context, *((p.data_ptr(), p._version) for p in model.parameters()))
    kept = _engines.get(model)
    if kept is None or kept[0] != key:
        if precision == "float16" and model.emb[0].weight.device.type == "cpu":
            raise ValueError("precision=float16 is slow on a CPU; set precision=bfloat16, int8 or model")
        kept = None
        _engines.pop(model, None)           # Before another one is built: both may not fit the memory.
        kept = (key, Engine(read_weights(model, source), lambda stage: source.context(stage), precision, dtype,
                            source.attention_backend))
        _engines[model] = kept
    return kept[1]


def release(model: nn.Module) -> None:
    """Free the model's engine: prepared weights and captured graphs. The next generation builds it again."""
    if _engines.pop(model, None) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()            # The memory of a graph can only be reused after this.
