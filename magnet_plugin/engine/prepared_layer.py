"""The linear layers of one transformer layer, prepared for inference."""
import typing as tp

import torch

from .linear import LinearLayer, LinearWeights, prepare_linear
from .text_attention import TextAttention, prepare_text_attention
from .weights import LayerWeights


class PreparedLayer:
    """The linear layers of a transformer layer.

    Args:
        weights: the layer's weights.
        precision: see `linear.prepare_linear`.
        dtype: likewise.
    """

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
