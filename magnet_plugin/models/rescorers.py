"""Models as rescorers: an AudioCraft language model or another MAGNeT, in the form that `decoding.rescoring` uses."""
import typing as tp

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding.rescoring import Rescorer, Score
from ..decoding.rescoring_options import check_fill
from ..modules.guidance import for_branches, guide_branches
from ..modules.tokens import replace_codebook
from .conditions import ConditionTensors, by_text_length, conditions_for, embed, has_text
from .lm_magnet import MagnetLMModel

Forward = tp.Callable[[torch.Tensor, int], torch.Tensor]


class CausalRescorer:
    """MusicGen, AudioGen or any other causal `LMModel`: one teacher-forced pass over the whole candidate.

    In its pattern of codebooks (usually codebook k delayed by k frames), the model predicts each token from what comes
    before it in the sequence. The predictions are read at frame t of codebook k for any delays, up to the last frame.

    Args:
        lm: the model, in evaluation mode.
        name: for errors and records.
    Raises:
        ValueError: the model is not causal, or in training mode.
    """

    def __init__(self, lm: LMModel, name: str = "the rescorer") -> None:
        check_causal(lm, name)
        self.lm = lm
        self.name = name

    def scorer(self, conditions: tp.Sequence[ConditioningAttributes], batch: int, cfg_coef: float = 1.0,
               fill: str = "special") -> Score:
        """Embed the conditions and return `score(tokens [B, K, T], stage) -> probabilities [B, T, card]`.

        Args:
            conditions: one entry per sample; none means unconditional.
            batch: number of samples B.
            cfg_coef: guidance scale; 1 means no guidance.
            fill: what is read in place of unknown tokens, see `RescoringOptions.rescorer_fill`.
        """
        check_fill(fill)
        special = self.lm.special_token_id
        forward = _forward(self.lm, conditions, batch, cfg_coef, self.name, self._logits)

        @torch.no_grad()
        def score(tokens: torch.Tensor, stage: int) -> torch.Tensor:
            if fill == "greedy":
                for above in range(stage + 1, tokens.shape[1]):
                    best = forward(tokens, above).argmax(dim=-1)
                    row = torch.where(tokens[:, above] == special, best, tokens[:, above])
                    tokens = replace_codebook(tokens, above, row)
            return torch.softmax(forward(tokens, stage), dim=-1)

        return score

    def _logits(self, tokens: torch.Tensor, tensors: ConditionTensors, stage: int) -> torch.Tensor:
        # With the default keep_only_valid_steps=True, the last k frames of codebook k would be NaN.
        def read(rows: tp.Any, own: ConditionTensors) -> torch.Tensor:
            return self.lm.compute_predictions(tokens[rows], [], own, keep_only_valid_steps=False).logits[:, stage]

        if not tensors:
            return read(slice(None), tensors)
        groups = list(by_text_length(tensors))
        return torch.cat([read(*group) for group in groups])[torch.cat([rows for rows, _ in groups]).argsort()]


class MaskedRescorer:
    """Another MAGNeT. It was trained to predict masked spans, so each frame is scored with its own span masked.

    The spans of a grid are divided into `groups`. One group at a time is masked, at a mask rate of 1 / groups, and the
    candidate is visible everywhere else, in `groups` parallel passes (not specified in the paper).

    Args:
        lm: the model, in evaluation mode.
        name: for errors and records.
        groups: number of passes, at least 2.
    """

    def __init__(self, lm: MagnetLMModel, name: str = "the rescorer", groups: int = 4) -> None:
        if lm.training:
            raise ValueError(f"{name} is in training mode; call model.eval() first")
        if groups < 2:
            raise ValueError(f"groups={groups} must be at least 2: with 1, the rescorer would see no tokens")
        self.lm = lm
        self.name = name
        self.groups = groups

    def scorer(self, conditions: tp.Sequence[ConditioningAttributes], batch: int, cfg_coef: float = 1.0,
               fill: str = "special") -> Score:
        """See `CausalRescorer.scorer`. Codebooks above the stage stay masked, as in MAGNeT's training.

        Raises:
            ValueError: `fill` is not `special`.
        """
        if fill != "special":
            raise ValueError(f"rescorer_fill={fill!r} is for autoregressive rescorers; {self.name} is a MAGNeT, trained "
                             "with the codebooks above the stage masked: set rescorer_fill='special'")
        forward = _forward(self.lm, conditions, batch, cfg_coef, self.name,
                           lambda tokens, tensors, stage: self.lm(tokens, [], tensors, stage=stage)[:, stage])

        @torch.no_grad()
        def score(tokens: torch.Tensor, stage: int) -> torch.Tensor:
            frame = torch.arange(tokens.shape[-1], device=tokens.device)
            group = frame // self.lm.span_len % self.groups                            # [T]
            probs = torch.zeros(())
            for now in range(self.groups):
                masked = tokens.clone()
                masked[:, stage] = masked[:, stage].masked_fill(group == now, self.lm.special_token_id)
                passed = torch.softmax(forward(masked, stage), dim=-1)
                probs = passed if now == 0 else torch.where((group == now)[:, None], passed, probs)
            return probs

        return score


def rescorer_of(lm: LMModel, name: str = "the rescorer") -> Rescorer:
    """Wrap a model as a rescorer."""
    return MaskedRescorer(lm, name) if isinstance(lm, MagnetLMModel) else CausalRescorer(lm, name)


def check_causal(lm: LMModel, name: str) -> None:
    """Raise ValueError unless `lm` is autoregressive and in evaluation mode."""
    layers = tp.cast(tp.Iterable[tp.Any], lm.transformer.layers)
    if isinstance(lm, MagnetLMModel) or not all(layer.self_attn.causal for layer in layers):
        raise ValueError(f"{name} is not autoregressive (its attention is not causal); use a MusicGen, an AudioGen or "
                         "another causal model")
    if lm.training:
        raise ValueError(f"{name} is in training mode; call model.eval() first")


def _forward(lm: LMModel, conditions: tp.Sequence[ConditioningAttributes], batch: int, cfg_coef: float, name: str,
             logits: tp.Callable[[torch.Tensor, ConditionTensors, int], torch.Tensor]) -> Forward:
    """Embed the conditions and return `forward(tokens [B, K, T], stage) -> guided logits [B, T, card]`, float32."""
    attributes = conditions_for(lm, conditions, batch, name)
    guided = cfg_coef != 1 and has_text(attributes)
    tensors = embed(lm, attributes, guided)

    def forward(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        predicted = logits(for_branches(tokens, guided), tensors, stage).float()
        return guide_branches(predicted, cfg_coef) if guided else predicted

    return forward
