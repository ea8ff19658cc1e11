"""Baselines: AudioCraft's MAGNeT and MusicGen with random weights, and the matrix products of a step on their own."""
from __future__ import annotations

import contextlib
import typing as tp

import torch
from torch.nn import functional as F

from ..engine.linear import LinearWeights, prepare_linear
from ..modules.context import Context, Full
from .measure import Run
from .settings import Size

CAPTION = "an energetic folk tune in D major with a fiddle, a flute and a bodhran"
CARD, CODEBOOKS = 2048, 4


@contextlib.contextmanager
def without_plugin() -> tp.Iterator[None]:
    """Restore AudioCraft's own classes inside a `with` block."""
    from ..registry import register, unregister
    unregister()
    try:
        yield
    finally:
        register()


def upstream_magnet(size: Size, length: int, device: torch.device, dtype: torch.dtype) -> tp.Any:
    """Build AudioCraft's MAGNeT, or return the exception if that fails on this machine."""
    with without_plugin():
        from audiocraft.models.lm_magnet import MagnetLMModel
        try:
            return build(MagnetLMModel, size, length, device, dtype)
        except Exception as error:      # reported in the table, whatever it is
            return error


def upstream_musicgen(size: Size, length: int, device: torch.device, dtype: torch.dtype) -> tp.Any:
    """Build AudioCraft's MusicGen."""
    with without_plugin():
        from audiocraft.models.lm import LMModel
        return build(LMModel, size, length, device, dtype, causal=True)


def plugin_magnet(upstream: tp.Any, size: Size, length: int, device: torch.device, dtype: torch.dtype) -> tp.Any:
    """Build the plugin's MAGNeT with the weights of `upstream`, unless that is an exception."""
    from ..models.lm_magnet import MagnetLMModel
    model = build(MagnetLMModel, size, length, device, dtype)
    if not isinstance(upstream, Exception):
        model.load_state_dict(upstream.state_dict())
    return model


def failing(error: Exception) -> Run:
    """Return a run that raises because the model could not be built."""
    def run() -> None:
        raise RuntimeError(f"cannot be built: {error}")
    return run


def build(klass: tp.Callable[..., torch.nn.Module], size: Size, length: int, device: torch.device, dtype: torch.dtype,
          causal: bool = False, seed: int = 0) -> tp.Any:
    """Build a model with random weights and the settings of the published models, with a word embedding instead of T5.

    Args:
        klass: the model's class.
        length: frames T of a clip.
        causal: for MusicGen, with its delay pattern.
    """
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider, ParallelPatternProvider
    from audiocraft.modules.conditioners import ConditionFuser, ConditioningProvider

    from ..models.conditioners import WordsConditioner
    torch.manual_seed(seed)
    provider = ConditioningProvider({"description": WordsConditioner(size.dim, 512, 16)}, device=str(device))
    fuser = ConditionFuser({"cross": ["description"], "prepend": [], "sum": [], "input_interpolate": []})
    pattern = DelayedPatternProvider(CODEBOOKS) if causal else ParallelPatternProvider(CODEBOOKS, empty_initial=-1)
    settings: dict[str, tp.Any] = {"causal": causal}
    if not causal:
        # A clip of 1 s with `length` frames: AudioCraft's model requires integers for both.
        settings |= {"subcodes_context": 5, "compression_model_framerate": length, "segment_duration": 1, "span_len": 3}
    # xformers on CUDA, as in AudioCraft's recipes; on a CPU its MAGNeT only runs with the custom attention.
    efficient = device.type == "cuda" or causal
    model = klass(pattern_provider=pattern, condition_provider=provider, fuser=fuser, n_q=CODEBOOKS, card=CARD, dim=size.dim,
                  num_heads=size.heads, num_layers=size.layers, hidden_scale=4, norm="layer_norm", norm_first=True,
                  bias_proj=False, bias_ff=False, bias_attn=False, dropout=0.0, activation="gelu", custom=not efficient,
                  memory_efficient=efficient, cross_attention=True, weight_init="gaussian", depthwise_init="current",
                  zero_bias_init=True, cfg_coef=3.0, device=device, dtype=dtype, **settings)
    model.condition_provider.to(device=device, dtype=dtype)
    return model.eval()


def captions(batch: int) -> list[tp.Any]:
    """Return the same caption for each clip of a batch."""
    from audiocraft.modules.conditioners import ConditioningAttributes
    return [ConditioningAttributes(text={"description": CAPTION}) for _ in range(batch)]


def matrix_products(size: Size, batch: int, length: int, context: Context, device: torch.device, dtype: torch.dtype,
                    packed: bool) -> Run:
    """Return only the matrix products of one guided step: a lower bound for the time of any exact forward pass.

    The conditional and the unconditional branch go through the layers, only the conditional one attends to the text, and
    one output head is applied. The small products of restricted attention are omitted.

    Args:
        length: frames T.
        context: of self-attention, `Full()` or `Band(width)`.
        packed: whether to multiply as the fast path does, with packed weights, instead of with `F.linear`.
    """
    dim, rows = size.dim, 2 * batch
    generator = torch.Generator(device).manual_seed(0)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    def product(outputs: int, inputs: int) -> tp.Callable[[torch.Tensor], torch.Tensor]:
        weight = values(outputs, inputs)
        return prepare_linear(LinearWeights(weight), "model", dtype) if packed else lambda x: F.linear(x, weight)

    layers = [[product(3 * dim, dim), product(dim, dim), product(4 * dim, dim), product(dim, 4 * dim), product(dim, dim),
               product(dim, dim)] for _ in range(size.layers)]
    head = product(CARD, dim)
    x, wide = values(rows, length, dim), values(rows, length, 4 * dim)
    q = k = v = values(rows * size.heads, length, dim // size.heads)
    weights = values(rows * size.heads, length, length) if isinstance(context, Full) else None

    @torch.no_grad()
    def run() -> None:
        for qkv, out, ff_in, ff_out, cross_q, cross_out in layers:
            qkv(x), out(x), ff_in(x), ff_out(wide), cross_q(x[:batch]), cross_out(x[:batch])
            if weights is not None:
                torch.bmm(q, k.transpose(1, 2)), torch.bmm(weights, v)
        head(x)

    return run
