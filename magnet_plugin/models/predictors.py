"""From a model to the forward passes that decoding calls: by the fast path, or by the model's own forward pass."""
import logging
import typing as tp

import torch
from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding import autoregressive, magnet
from ..decoding.known_tokens import KnownTokens
from ..decoding.options import GenerationOptions, PromptOptions
from ..decoding.sampling import Sampler
from ..engine import static_decoding, static_prompt
from ..engine.causal import CausalSession
from ..engine.engines import engine_for
from ..engine.forward import Session
from ..engine.weights import Source, UnsupportedModel
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
    forward = fast_session(model, tensors, guided, options.engine, options.precision) or _reference_forward(model, tensors)
    return GuidedPredictor(forward, guided, options.guidance_every)


def decode(predict: GuidedPredictor, known: KnownTokens, options: GenerationOptions, **arguments: tp.Any) -> torch.Tensor:
    """Run `decoding.magnet.decode`; with the fast path on a GPU, as CUDA graphs (see `engine.static_decoding`).

    The graphs hold no fixed order of spans; with one, the loop launches the steps.
    """
    forward = predict.forward
    if isinstance(forward, Session) and forward.engine.static and not options.fixed_order:
        return static_decoding.decode(forward, known, options, has_text=predict.guided, **arguments)
    return magnet.decode(predict, known, options, **arguments)


class PromptDecoder(tp.Protocol):
    """The forward passes of autoregressive decoding."""

    def prefill(self, columns: torch.Tensor) -> None:
        """Read the first columns, Long [B, K, C], in one pass."""

    def next_logits(self, column: torch.Tensor, scale: float) -> torch.Tensor:
        """See `autoregressive.NextLogits`."""


def decode_prompt(decoder: PromptDecoder, known: KnownTokens, steps: int, options: PromptOptions, sampler: Sampler, *,
                  special: int, start: int, **arguments: tp.Any) -> KnownTokens:
    """Run `decoding.autoregressive.decode_prompt`; with the fast path on a GPU, as CUDA graphs (see `engine.static_prompt`).

    The first `start` steps, whose tokens are all known, are read in one pass.
    """
    if isinstance(decoder, CausalSession) and decoder.engine.static:
        return static_prompt.decode_prompt(decoder, known, steps, options, sampler, special=special, start=start,
                                           **arguments)
    if start:
        decoder.prefill(autoregressive.delay(known.tokens, special)[..., :start])
    return autoregressive.decode_prompt(decoder.next_logits, known, steps, options, sampler, special=special, start=start,
                                        **arguments)


def _reference_forward(model: tp.Any, tensors: ConditionTensors) -> Forward:
    """The model's own forward pass."""
    def forward(tokens: torch.Tensor, stage: int, positions: torch.Tensor, both_branches: bool) -> torch.Tensor:
        tokens = for_branches(tokens, both_branches)
        logits = model.stage_logits(tokens, rows_of(tensors, len(tokens)), stage)
        return gather_frames(logits, for_branches(positions, both_branches))

    return forward


def fast_session(model: tp.Any, tensors: ConditionTensors, guided: bool, engine: str, precision: str,
                 source: tp.Optional[Source] = None) -> tp.Optional[Session]:
    """Create the fast path's forward pass of one generation.

    Args:
        model: the model.
        tensors: embedded conditions.
        guided: whether the second half of their rows is the unconditional branch.
        engine, precision: see `GenerationOptions`.
        source: see `engines.engine_for`.
    Returns:
        None if the fast path is not requested or, with engine=auto, does not support this model.
    Raises:
        ValueError: the fast path is requested and does not support this model.
    """
    if engine == "plain":
        return None
    weight = next(model.parameters())
    try:
        made = engine_for(model, precision, compute_dtype(weight), source)
    except UnsupportedModel as error:
        if engine == "lean" or precision != "model":
            raise ValueError(f"engine={engine}, precision={precision}: {error}; set engine=plain and "
                             "precision=model") from None
        logger.info("%s; decoding uses the reference path (engine=plain)", error)
        return None
    rows = len(next(iter(tensors.values()))[0]) if tensors else 0
    _, text = model.fuser(weight.new_zeros(rows, 1, model.dim), tensors)
    if text is None:
        return made.session(None)
    text, mask = text.to(weight.dtype), text_mask(tensors, model.fuser)
    conditional, without = text.chunk(2) if guided else (text, None)
    return made.session(conditional, without, mask)


def compute_dtype(weight: torch.Tensor) -> torch.dtype:
    """Return the dtype that linear layers with this weight compute in: that of autocast if it is enabled."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
