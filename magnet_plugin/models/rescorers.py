"""Models as rescorers: an AudioCraft language model or another MAGNeT, in the form that `decoding.rescoring` uses."""
import functools
import typing as tp

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes

from ..decoding.rescoring import Rescorer, Score
from ..decoding.rescoring_options import check_fill
from ..modules.guidance import for_branches, guide_branches
from ..modules.tokens import replace_codebook
from .causal import causal_session
from .conditions import ConditionTensors, by_text_length, conditions_for, embed, has_text
from .lm_magnet import MagnetLMModel
from .predictors import fast_session
from .teacher_forcing import TeacherForcing

Logits = tp.Callable[[torch.Tensor, int], torch.Tensor]


class CausalRescorer:
    """MusicGen, AudioGen or any other causal `LMModel`: one teacher-forced pass over the whole candidate.

    In its pattern of codebooks (usually codebook k delayed by k frames), the model predicts each token from what comes
    before it in the sequence. The predictions are read at frame t of codebook k for any delays, up to the last frame.

    Args:
        lm: the model, in evaluation mode.
        name: for errors and records.
        engine: `plain` computes scores by the model's own forward pass; otherwise the fast path does where it supports the
            model.
    Raises:
        ValueError: the model is not causal, or in training mode.
    """

    def __init__(self, lm: LMModel, name: str = "the rescorer", engine: str = "auto") -> None:
        check_causal(lm, name)
        self.lm, self.name, self.engine = lm, name, engine

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
        forward = _forward(self, conditions, batch, cfg_coef)

        @torch.no_grad()
        def score(tokens: torch.Tensor, stage: int) -> torch.Tensor:
            if fill == "greedy":
                for above in range(stage + 1, tokens.shape[1]):
                    best = forward(tokens, above).argmax(dim=-1)
                    row = torch.where(tokens[:, above] == special, best, tokens[:, above])
                    tokens = replace_codebook(tokens, above, row)
            return torch.softmax(forward(tokens, stage), dim=-1)

        return score

    def fast_logits(self, tensors: ConditionTensors, guided: bool) -> tp.Optional[Logits]:
        """Return the fast path's function, None without one; its logits are those of both branches with guidance."""
        session = causal_session(self.lm, tensors, guided, self.engine)
        if session is None:
            return None
        provider, special = self.lm.pattern_provider, self.lm.special_token_id
        pattern = functools.cache(lambda length: TeacherForcing(provider, length, session.engine.device))

        def logits(tokens: torch.Tensor, stage: int) -> torch.Tensor:
            taught = pattern(tokens.shape[-1])
            columns = taught.columns[stage].expand(len(tokens), -1)
            return session.logits(taught.place(tokens, special), stage, guided, columns)

        return logits

    def logits(self, tokens: torch.Tensor, tensors: ConditionTensors, stage: int) -> torch.Tensor:
        """Run the model's own forward pass: tokens [rows, K, T] -> logits [rows, T, card]."""
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
        engine: see `CausalRescorer`.
    """

    def __init__(self, lm: MagnetLMModel, name: str = "the rescorer", groups: int = 4, engine: str = "auto") -> None:
        if lm.training:
            raise ValueError(f"{name} is in training mode; call model.eval() first")
        if groups < 2:
            raise ValueError(f"groups={groups} must be at least 2: with 1, the rescorer would see no tokens")
        self.lm, self.name, self.groups, self.engine = lm, name, groups, engine

    def scorer(self, conditions: tp.Sequence[ConditioningAttributes], batch: int, cfg_coef: float = 1.0,
               fill: str = "special") -> Score:
        """See `CausalRescorer.scorer`. Codebooks above the stage stay masked, as in MAGNeT's training.

        Raises:
            ValueError: `fill` is not `special`.
        """
        if fill != "special":
            raise ValueError(f"rescorer_fill={fill!r} is for autoregressive rescorers; {self.name} is a MAGNeT, trained "
                             "with the codebooks above the stage masked: set rescorer_fill='special'")
        forward = _forward(self, conditions, batch, cfg_coef)

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

    def fast_logits(self, tensors: ConditionTensors, guided: bool) -> tp.Optional[Logits]:
        """See `CausalRescorer.fast_logits`."""
        session = fast_session(self.lm, tensors, guided, "plain" if self.engine == "plain" else "auto", "model")
        return None if session is None else lambda tokens, stage: session.logits(tokens, stage, guided)

    def logits(self, tokens: torch.Tensor, tensors: ConditionTensors, stage: int) -> torch.Tensor:
        """Run the model's own forward pass: tokens [rows, K, T] -> logits [rows, T, card]."""
        return self.lm.stage_logits(tokens, tensors, stage)


def rescorer_of(lm: LMModel, name: str = "the rescorer", engine: str = "auto") -> Rescorer:
    """Wrap a model as a rescorer."""
    if isinstance(lm, MagnetLMModel):
        return MaskedRescorer(lm, name, engine=engine)
    return CausalRescorer(lm, name, engine)


def check_causal(lm: LMModel, name: str) -> None:
    """Raise ValueError unless `lm` is autoregressive and in evaluation mode."""
    layers = tp.cast(tp.Iterable[tp.Any], lm.transformer.layers)
    if isinstance(lm, MagnetLMModel) or not all(layer.self_attn.causal for layer in layers):
        raise ValueError(f"{name} is not autoregressive (its attention is not causal); use a MusicGen, an AudioGen or "
                         "another causal model")
    if lm.training:
        raise ValueError(f"{name} is in training mode; call model.eval() first")


def _forward(rescorer: tp.Union[CausalRescorer, MaskedRescorer], conditions: tp.Sequence[ConditioningAttributes], batch: int,
             cfg_coef: float) -> Logits:
    """Embed the conditions and return `forward(tokens [B, K, T], stage) -> guided logits [B, T, card]`, float32."""
    attributes = conditions_for(rescorer.lm, conditions, batch, rescorer.name)
    guided = cfg_coef != 1 and has_text(attributes)
    tensors = embed(rescorer.lm, attributes, guided)
    fast = rescorer.fast_logits(tensors, guided)

    def forward(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        if fast is not None:
            predicted = fast(tokens, stage)
        else:
            predicted = rescorer.logits(for_branches(tokens, guided), tensors, stage).float()
        return guide_branches(predicted, cfg_coef) if guided else predicted

    return forward
