"""What is measured beside the engine: AudioCraft's MAGNeT and MusicGen, and the bare matrix products."""
from __future__ import annotations

import contextlib
import dataclasses
import typing as tp

import torch
from torch.nn import functional as F

from ..engine.linear import LinearWeights, prepare_linear
from ..modules.attention import Full

CAPTION = "an energetic folk tune in D major with a fiddle, a flute and a bodhran"
CARD, CODEBOOKS = 2048, 4


@dataclasses.dataclass(frozen=True)
class Size:
    """A transformer: `dim` channels, `layers` layers, `heads` heads."""
    dim: int
    layers: int
    heads: int


SIZES = {"tiny": Size(128, 4, 4), "dim512": Size(512, 6, 8), "dim1024": Size(1024, 6, 16), "small": Size(1024, 24, 16),
         "medium": Size(1536, 48, 24)}


@contextlib.contextmanager
def audiocrafts_own() -> tp.Iterator[None]:
    """AudioCraft as it was before the plugin took its names."""
    from ..registry import register, unregister
    unregister()
    try:
        yield
    finally:
        register()


def build(klass: tp.Callable[..., torch.nn.Module], size: Size, length: int, device: torch.device, dtype: torch.dtype,
          causal: bool = False, seed: int = 0) -> tp.Any:
    """A model with random weights, the published models' settings, and words in place of T5."""
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider, ParallelPatternProvider
    from audiocraft.modules.conditioners import ConditionFuser, ConditioningProvider

    from ..models.conditioners import WordsConditioner
    torch.manual_seed(seed)
    provider = ConditioningProvider({"description": WordsConditioner(size.dim, 512, 16)}, device=str(device))
    fuser = ConditionFuser({"cross": ["description"], "prepend": [], "sum": [], "input_interpolate": []})
    pattern = DelayedPatternProvider(CODEBOOKS) if causal else ParallelPatternProvider(CODEBOOKS, empty_initial=-1)
    settings: dict[str, tp.Any] = {"causal": causal}
    if not causal:
        # A second of `length` frames: AudioCraft's model wants both numbers whole.
        settings |= {"subcodes_context": 5, "compression_model_framerate": length, "segment_duration": 1, "span_len": 3}
    # xformers on CUDA, as AudioCraft's own recipes have it; on a CPU its MAGNeT runs by the custom attention alone.
    efficient = device.type == "cuda" or causal
    model = klass(pattern_provider=pattern, condition_provider=provider, fuser=fuser, n_q=CODEBOOKS, card=CARD, dim=size.dim,
                  num_heads=size.heads, num_layers=size.layers, hidden_scale=4, norm="layer_norm", norm_first=True,
                  bias_proj=False, bias_ff=False, bias_attn=False, dropout=0.0, activation="gelu", custom=not efficient,
                  memory_efficient=efficient, cross_attention=True, weight_init="gaussian", depthwise_init="current",
                  zero_bias_init=True, cfg_coef=3.0, device=device, dtype=dtype, **settings)
    model.condition_provider.to(device=device, dtype=dtype)
    return model.eval()


def captions(batch: int) -> list[tp.Any]:
    """Conditions for a batch."""
    from audiocraft.modules.conditioners import ConditioningAttributes
    return [ConditioningAttributes(text={"description": CAPTION}) for _ in range(batch)]


def bare_products(size: Size, batch: int, length: int, context: tp.Any, device: torch.device, dtype: torch.dtype,
                  packed: bool) -> tp.Callable[[], None]:
    """The matrix products of one guided step at `length` frames, and nothing else: what no exact forward pass can avoid.

    Both guidance branches go through the layers; the text is attended to in the conditional one; one head is applied.
    Where the context is not full, its products along the band are left out: they are next to nothing.

    Args:
        packed: multiply as the engine does, with weights laid out for the processor; otherwise by `linear`.
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
