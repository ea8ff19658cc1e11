"""Rescoring (paper, "Model Rescorer"): an external model's opinion of a candidate, mixed into MAGNeT's probabilities.

In each step MAGNeT fills in a whole candidate. The rescorer reads it in one parallel pass and says how likely every token
of the vocabulary is at every frame. The tokens kept are drawn from p = w * p_MAGNeT + (1 - w) * p_rescorer, and the same p
of the drawn tokens decides which spans are masked again. What the paper leaves open is marked [?] in `RescoringOptions`.
"""
import dataclasses
import typing as tp

import torch

from .rescoring_options import RescoringOptions

Score = tp.Callable[[torch.Tensor, int], torch.Tensor]
"""`score(tokens [B, K, T], stage) -> probabilities [B, T, card]` of codebook `stage`. The codebooks up to `stage` are
filled; those above hold the mask token where nothing is known."""
Draw = tp.Callable[[torch.Tensor], torch.Tensor]
"""`draw(probabilities [B, M, card]) -> tokens [B, M]`, greedy or at random, top-p and top-k included."""


class Rescorer(tp.Protocol):
    """A model that can give opinions; see `magnet_plugin.models.rescorers`. `name` is for errors and records."""
    name: str

    def scorer(self, conditions: tp.Sequence[tp.Any], batch: int, cfg_coef: float = 1.0, fill: str = "special") -> Score:
        """Embed the conditions, once, and return the function that scores candidates under them."""


@dataclasses.dataclass(frozen=True)
class Rescored:
    """The outcome of one rescored step.

    Attributes:
        tokens: Long [B, M], to stand at the step's positions.
        probs: their probabilities in the combination [B, M], from which spans are scored.
        finite: Bool [], False where either model gave something infinite or not a number.
    """
    tokens: torch.Tensor
    probs: torch.Tensor
    finite: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Rescoring:
    """When the rescorer is asked, and what becomes of its answer.

    Attributes:
        score: the rescorer, under the conditions of this generation.
        options: the settings; only fields that start with `rescorer_` are read.
    """
    score: Score
    options: RescoringOptions

    @staticmethod
    def of(rescorer: tp.Optional[Rescorer], options: RescoringOptions, conditions: tp.Sequence[tp.Any], batch: int
           ) -> tp.Optional["Rescoring"]:
        """What the settings ask for: None at w = 1, where the rescorer is not touched.

        Raises:
            ValueError: rescoring is wanted, but there is no rescorer.
        """
        if not options.rescores:
            return None
        if rescorer is None:
            raise ValueError(f"rescorer_weight={options.rescorer_weight} needs a rescorer; give rescorer=, a name or a "
                             "model, or set rescorer_weight=1")
        score = rescorer.scorer(conditions, batch, options.rescorer_cfg_coef, options.rescorer_fill)
        return Rescoring(score, options)

    def applies(self, stage: int, step: int, steps: int) -> bool:
        """Whether step `step` (0-based) of the `steps` of `stage` is rescored.

        Counted back from the last step: its tokens stay, and no stage of `rescorer_stages` goes without.
        """
        options = self.options
        if not options.rescores or (options.rescorer_stages is not None and stage not in options.rescorer_stages):
            return False
        return (steps - 1 - step) % options.rescorer_every == 0

    def rescore(self, probs: torch.Tensor, positions: torch.Tensor, candidate: torch.Tensor, stage: int,
                temperature: float, draw: Draw) -> Rescored:
        """Ask the rescorer about a candidate and choose the step's tokens anew.

        Args:
            probs: MAGNeT's guided, tempered probabilities at the step's positions [B, M, card].
            positions: those frames, Long [B, M].
            candidate: MAGNeT's own filling: tokens [B, K, T] without a mask in codebooks up to `stage`.
            stage: codebook that is being decoded.
            temperature: MAGNeT's in this step.
            draw: the step's way of sampling. It should draw with the noise that drew the candidate: where the two models
                agree the candidate then stands, and what the rescorer read remains true.
        """
        opinion = at(self.score(candidate, stage).float(), positions)
        if self.options.rescorer_anneal:
            opinion = sharpen(opinion, min(temperature, 1.0))
        mixed = combine(probs, opinion, self.options.rescorer_weight)
        tokens = draw(mixed) if self.options.rescorer_resample else candidate[:, stage].gather(1, positions)
        return Rescored(tokens, mixed.gather(-1, tokens[..., None])[..., 0], mixed.isfinite().all())


def combine(magnet: torch.Tensor, rescorer: torch.Tensor, weight: float) -> torch.Tensor:
    """w * p_MAGNeT + (1 - w) * p_rescorer, all [B, M, card]; exactly p_MAGNeT at w = 1."""
    return magnet if weight == 1 else weight * magnet + (1 - weight) * rescorer


def sharpen(probs: torch.Tensor, temperature: float) -> torch.Tensor:
    """Probabilities [..., card] as a softmax of this temperature would have given them: p^(1/temperature), normed."""
    if temperature == 1:
        return probs
    return torch.softmax(probs.clamp_min(torch.finfo(probs.dtype).tiny).log() / temperature, dim=-1)


def at(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The frames `positions` [B, M] of `values` [B, T, card]: [B, M, card]."""
    return values.gather(1, positions[..., None].expand(-1, -1, values.shape[-1]))


def place(tokens: torch.Tensor, stage: int, positions: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A copy of `tokens` [B, K, T] whose codebook `stage` holds `values` [B, M] at the frames `positions` [B, M]."""
    tokens = tokens.clone()
    tokens[:, stage] = tokens[:, stage].scatter(1, positions, values)
    return tokens
