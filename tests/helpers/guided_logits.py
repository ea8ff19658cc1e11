"""Guided logits of a model at every stage, by the fast path or the reference path."""
import typing as tp

import torch

from magnet_plugin.decoding.options import GenerationOptions
from magnet_plugin.models.predictors import predictor

from .small_models import MagnetLMModel, build_scaled, conditions

LENGTH = 50
TEXTS = ("a reel in D", "a slow long waltz on the flute with a drone", None)


def texts_for(model: tp.Any, texts: tp.Sequence[tp.Optional[str]] = TEXTS) -> list[tp.Any]:
    return conditions(*texts) if model.condition_provider.conditioners else []


@torch.no_grad()
def guided_logits(model: tp.Any, seed: int = 0, texts: tp.Sequence[tp.Optional[str]] = TEXTS, **options: tp.Any
                  ) -> list[torch.Tensor]:
    """Logits of random tokens, for each stage, guidance scales 1, 3 and 10, and both some frames and all of them."""
    generator = torch.Generator().manual_seed(seed)
    predict = predictor(model, texts_for(model, texts), len(TEXTS), GenerationOptions(**options))
    found, device = [], next(model.parameters()).device
    for stage in range(model.n_q):
        tokens = torch.randint(0, model.card + 1, (len(TEXTS), model.n_q, LENGTH), generator=generator)
        some = torch.stack([torch.randperm(LENGTH, generator=generator)[:17] for _ in TEXTS]).to(device)
        tokens, every = tokens.to(device), torch.arange(LENGTH, device=device).expand(len(TEXTS), LENGTH)
        for scale in (1.0, 3.0, 10.0):
            found += [predict.logits(tokens, stage, scale, frames) for frames in (some, every)]
    return [x.cpu() for x in found]


def relative_error(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest difference relative to the largest expected logit."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


def cuda_model(dtype: torch.dtype = torch.float32, klass: type = MagnetLMModel, **changes: tp.Any) -> tp.Any:
    model = build_scaled(klass, biases=True, **changes).to("cuda", dtype)
    model.condition_provider.device = "cuda"
    for conditioner in model.condition_provider.conditioners.values():
        conditioner.to("cuda", dtype)
    return model
