"""From a model to the guided predictor that decoding calls: by the fast path, or by the model's own forward pass."""
import logging
import typing as tp

import torch
from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding import magnet
from ..decoding.known_tokens import KnownTokens
from ..decoding.options import GenerationOptions
from ..engine import static_decoding
from ..engine.forward import Session, engine_for
from ..engine.weights import UnsupportedModel
from ..modules.guidance import Forward, GuidedPredictor, for_branches
from ..modules.tokens import gather_frames
from .conditions import ConditionTensors, embed_branches, rows_of, text_mask

logger = logging.getLogger(__name__)


def predictor(model: tp.Any, conditions: list[ConditioningAttributes], batch: int, options: GenerationOptions,
              negative: tp.Sequence[ConditioningAttributes] = ()) -> GuidedPredictor:
    """Build the predictor of one generation.

    Args:
        model: the model.
        conditions: one entry per sample; none means unconditional.
        batch: number of samples B.
        options: decoding settings.
        negative: conditions that guidance leads away from; none means those without a text.
    Raises:
        ValueError: the number of conditions is wrong, or the fast path was requested and does not support the model.
    """
    tensors, guided = embed_branches(model, conditions, batch, negative, options.text_padding)
    forward = _fast_forward(model, tensors, guided, options) or _reference_forward(model, tensors)
    return GuidedPredictor(forward, guided, options.guidance_every)


def decode(predict: GuidedPredictor, known: KnownTokens, options: GenerationOptions, **arguments: tp.Any) -> torch.Tensor:
    """Run `decoding.magnet.decode`; with the fast path on a GPU, as CUDA graphs (see `engine.static_decoding`)."""
    forward = predict.forward
    if isinstance(forward, Session) and forward.engine.static:
        return static_decoding.decode(forward, known, options, has_text=predict.guided, **arguments)
    return magnet.decode(predict, known, options, **arguments)


def _reference_forward(model: tp.Any, tensors: ConditionTensors) -> Forward:
    """The model's own forward pass."""
    def forward(tokens: torch.Tensor, stage: int, positions: torch.Tensor, both_branches: bool) -> torch.Tensor:
        tokens = for_branches(tokens, both_branches)
        logits = model.stage_logits(tokens, rows_of(tensors, len(tokens)), stage)
        return gather_frames(logits, for_branches(positions, both_branches))

    return forward


def _fast_forward(model: tp.Any, tensors: ConditionTensors, guided: bool, options: GenerationOptions
                  ) -> tp.Optional[Forward]:
    """The engine's forward pass; None if it is not requested or, with engine=auto, does not support this model."""
    if options.engine == "plain":
        return None
    weight = next(model.parameters())
    try:
        engine = engine_for(model, options.precision, compute_dtype(weight))
    except UnsupportedModel as error:
        if options.engine == "lean" or options.precision != "model":
            raise ValueError(f"engine={options.engine}, precision={options.precision}: {error}; set engine=plain and "
                             "precision=model") from None
        logger.info("%s; decoding uses the reference path (engine=plain)", error)
        return None
    rows = len(next(iter(tensors.values()))[0]) if tensors else 0
    _, source = model.fuser(weight.new_zeros(rows, 1, model.dim), tensors)
    if source is None:
        return engine.session(None)
    source, mask = source.to(weight.dtype), text_mask(tensors, model.fuser)
    conditional, without = source.chunk(2) if guided else (source, None)
    return engine.session(conditional, without, mask)


def compute_dtype(weight: torch.Tensor) -> torch.dtype:
    """Return the dtype that linear layers with this weight compute in: that of autocast if it is enabled."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
