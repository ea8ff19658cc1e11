"""Small models for tests: the plugin's, and AudioCraft's own to compare them with."""
import typing as tp

import torch

import magnet_plugin

magnet_plugin.unregister()              # AudioCraft's own class, whatever ran before
from audiocraft.models.lm import LMModel  # noqa: E402
from audiocraft.models.lm_magnet import MagnetLMModel as UpstreamMagnet  # noqa: E402
from audiocraft.modules.codebooks_patterns import DelayedPatternProvider, ParallelPatternProvider  # noqa: E402
from audiocraft.modules.conditioners import ConditionFuser, ConditioningAttributes, ConditioningProvider  # noqa: E402
from audiocraft.solvers.magnet import MagnetSolver as UpstreamSolver  # noqa: E402

from magnet_plugin.models.conditioners import WordsConditioner  # noqa: E402
from magnet_plugin.models.lm_hybrid import HybridMagnetLMModel  # noqa: E402
from magnet_plugin.models.lm_magnet import MagnetLMModel  # noqa: E402

from .weights import scale_weights  # noqa: E402

__all__ = ["HybridMagnetLMModel", "MagnetLMModel", "UpstreamMagnet", "UpstreamMusicGen", "UpstreamSolver", "build",
           "build_scaled", "conditions", "twins"]

K, CARD, DIM = 4, 40, 64


def build(klass: type, length: int = 96, seed: int = 0, conditioned: bool = True, **changes: tp.Any) -> tp.Any:
    """A two-layer model for `length` frames (given as one second of `length` frames/s), in evaluation mode."""
    torch.manual_seed(seed)
    names = ["description"] if conditioned else []
    provider = ConditioningProvider({name: WordsConditioner(DIM, 128, 16) for name in names})
    fuser = ConditionFuser({"cross": names, "prepend": [], "sum": [], "input_interpolate": []})
    settings: dict[str, tp.Any] = dict(
        n_q=K, card=CARD, dim=DIM, num_heads=4, num_layers=2, norm_first=True, bias_ff=False, bias_attn=False,
        bias_proj=False, custom=True, causal=False, cross_attention=conditioned, dropout=0.0, subcodes_context=5,
        compression_model_framerate=length, segment_duration=1, span_len=3, weight_init="gaussian",
        depthwise_init="current", device="cpu", dtype=torch.float32)
    settings.update(changes)
    delayed = klass in (HybridMagnetLMModel, UpstreamMusicGen)
    n_q = settings["n_q"]
    pattern = DelayedPatternProvider(n_q, list(range(n_q))) if delayed else ParallelPatternProvider(n_q, empty_initial=-1)
    return klass(pattern_provider=pattern, condition_provider=provider, fuser=fuser, **settings).eval()


class UpstreamMusicGen(LMModel):
    """AudioCraft's autoregressive model, under the settings that `build` gives."""

    def __init__(self, **kwargs: tp.Any) -> None:
        for name in ("subcodes_context", "compression_model_framerate", "segment_duration", "span_len"):
            kwargs.pop(name)
        super().__init__(**{**kwargs, "causal": True})


def build_scaled(klass: type, scale: float = 6.0, biases: bool = False, **changes: tp.Any) -> tp.Any:
    """`build`, with larger weights and optionally random biases; see `scale_weights`."""
    return scale_weights(build(klass, **changes), scale, biases)


def twins(length: int = 96, seed: int = 0, scale: float = 6.0, **changes: tp.Any) -> tuple[tp.Any, tp.Any]:
    """AudioCraft's model and the plugin's with the same weights, which are scaled up; see `scale_weights`."""
    theirs, ours = build(UpstreamMagnet, length, seed, **changes), build(MagnetLMModel, length, seed + 1, **changes)
    scale_weights(theirs, scale, biases=True)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def conditions(*texts: tp.Optional[str]) -> list[ConditioningAttributes]:
    return [ConditioningAttributes(text={"description": text}) for text in texts]
