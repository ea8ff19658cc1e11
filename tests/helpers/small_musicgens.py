"""Small autoregressive models for tests: MusicGen's kind, in memory and as release folders."""
import shutil
import typing as tp
from pathlib import Path

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.codebooks_patterns import CodebooksPatternProvider, DelayedPatternProvider
from audiocraft.modules.conditioners import ConditionFuser, ConditioningProvider

from magnet_plugin.models.conditioners import WordsConditioner

from .weights import scale_weights

DIM = 32


def scale_all_weights(model: tp.Any, scale: float = 6.0) -> tp.Any:
    """Scale the weights, including those of the heads; see `scale_weights`."""
    return scale_weights(model, scale, prefixes=("transformer", "emb", "linears"))


def build_musicgen(n_q: int = 4, card: int = 16, seed: int = 0, conditioned: bool = True,
                   pattern: tp.Optional[CodebooksPatternProvider] = None, **changes: tp.Any) -> LMModel:
    """A causal model of two layers with MusicGen's delays, in evaluation mode."""
    torch.manual_seed(seed)
    names = ["description"] if conditioned else []
    provider = ConditioningProvider({name: WordsConditioner(DIM, 64, 16) for name in names})
    fuser = ConditionFuser({"cross": names, "prepend": [], "sum": [], "input_interpolate": []})
    settings: dict[str, tp.Any] = dict(
        dim=DIM, num_heads=2, num_layers=2, norm_first=True, bias_ff=False, bias_attn=False, bias_proj=False, causal=True,
        custom=True, cross_attention=conditioned, dropout=0.0, weight_init="gaussian", depthwise_init="current",
        cfg_coef=3.0, device="cpu", dtype=torch.float32)
    settings.update(changes)
    model = LMModel(pattern_provider=pattern or DelayedPatternProvider(n_q), condition_provider=provider, fuser=fuser,
                    n_q=n_q, card=card, **settings)
    return scale_all_weights(model).eval()


def musicgen_folder(folder: Path, codec_folder: Path, *overrides: str) -> Path:
    """A release folder in AudioCraft's format: an untrained MusicGen on the codec of another release folder."""
    from audiocraft.models import builders

    from magnet_plugin.models import checkpoints
    from tests.conftest import compose
    cfg = compose("solver=musicgen/tiny_16khz", "device=cpu", "transformer_lm.card=64", "transformer_lm.dim=32",
                  "transformer_lm.num_heads=2", "transformer_lm.num_layers=2",
                  "dataset.segment_duration=30", *overrides)          # MusicGen refuses less than 18 s
    torch.manual_seed(5)
    lm = scale_all_weights(builders.get_lm_model(cfg))
    checkpoints.release(lm.state_dict(), cfg, folder / checkpoints.LM_FILE)
    shutil.copy(codec_folder / checkpoints.CODEC_FILE, folder / checkpoints.CODEC_FILE)
    return folder
