"""Rescoring (arXiv 2401.04577, section 3.4): a second model's probabilities are mixed into MAGNeT's.

In each step MAGNeT fills in a whole candidate. The rescorer reads it in one parallel pass and returns the probability of
every token of the vocabulary at every frame. The final tokens are drawn from p = w * p_MAGNeT + (1 - w) * p_rescorer, and
the same p decides which spans are masked again. Details that the paper does not specify are settings of
`RescoringOptions`.
"""
import dataclasses
import typing as tp

import torch

from ..modules.tokens import gather_frames, replace_codebook
from .rescoring_options import RescoringOptions
from .sampling import Sampler
from .steps import Step

Score = tp.Callable[[torch.Tensor, int], torch.Tensor]
"""`score(tokens [B, K, T], stage)` gives probabilities [B, T, card] of codebook `stage`. Codebooks up to `stage` are filled;
those above it hold the mask token where nothing is known."""


class Rescorer(tp.Protocol):
    """A model that can score candidates, see `magnet_plugin.models.rescorers`. `name` is used in errors and records."""
    name: str

    def scorer(self, conditions: tp.Sequence[tp.Any], batch: int, cfg_coef: float = 1.0, fill: str = "special") -> Score:
        """Embed the conditions and return the function that scores candidates under them."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """The tokens that a step has chosen.

    Attributes:
        tokens: Long [B, K, T], without a mask token in codebooks up to `stage`.
        stage: codebook of the step.
        masked: frames that the step has filled in, Bool [B, T].
        frames: frames that were predicted, those of `masked` among them, Long [B, M].
        sampled: tokens drawn for `frames`, Long [B, M]; only those of masked frames are in `tokens`.
        probs: probabilities that they were drawn from, before top-p and top-k, [B, M, card].
        finite: Bool [], False if a model produced something infinite or not a number.
    """
    tokens: torch.Tensor
    stage: int
    masked: torch.Tensor
    frames: torch.Tensor
    sampled: torch.Tensor
    probs: torch.Tensor
    finite: torch.Tensor

    @staticmethod
    def fill(tokens: torch.Tensor, stage: int, masked: torch.Tensor, frames: torch.Tensor, sampled: torch.Tensor,
             probs: torch.Tensor, finite: torch.Tensor) -> "Candidate":
        """Put `sampled` into codebook `stage` of `tokens` [B, K, T], at those of `frames` that are masked."""
        codes = tokens[:, stage]
        codes = torch.where(masked, codes.scatter(1, frames, sampled), codes)
        return Candidate(replace_codebook(tokens, stage, codes), stage, masked, frames, sampled, probs, finite)

    def likelihood(self) -> torch.Tensor:
        """Probability of the token drawn for each frame, [B, T]; 1 for frames that were not predicted.

        It does not depend on top-p: it says how likely a token is under the model, not under the sampler.
        """
        likely = self.probs.gather(-1, self.sampled[..., None])[..., 0]
        return torch.ones_like(self.masked, dtype=likely.dtype).scatter(1, self.frames, likely)


class NoRescoring:
    """MAGNeT without a rescorer: returns candidates unchanged. `note` completes errors about non-finite logits."""
    note: tp.ClassVar[str] = ""

    def noise(self, sampler: Sampler, probs: torch.Tensor, frames: torch.Tensor, length: int, step: Step
              ) -> tp.Optional[torch.Tensor]:
        """Return None: tokens are drawn only once."""
        return None

    def rescore(self, candidate: Candidate, step: Step, sampler: Sampler, noise: tp.Optional[torch.Tensor]) -> Candidate:
        """Return the candidate unchanged."""
        return candidate


NO_RESCORING = NoRescoring()


@dataclasses.dataclass(frozen=True)
class Rescoring(NoRescoring):
    """When the rescorer is called, and how its probabilities are used.

    Attributes:
        score: the rescorer, under the conditions of this generation.
        options: the settings; only fields that start with `rescorer_` are read.
    """
    note: tp.ClassVar[str] = ", MAGNeT's or the rescorer's"
    score: Score
    options: RescoringOptions

    @staticmethod
    def of(rescorer: tp.Optional[Rescorer], options: RescoringOptions, conditions: tp.Sequence[tp.Any], batch: int
           ) -> NoRescoring:
        """Build the rescoring for these options; at w = 1 the rescorer is not used.

        Raises:
            ValueError: the options need a rescorer and there is none.
        """
        if not options.rescores:
            return NO_RESCORING
        if rescorer is None:
            raise ValueError(f"rescorer_weight={options.rescorer_weight} needs a rescorer; pass rescorer=, a name or a "
                             "model, or set rescorer_weight=1")
        score = rescorer.scorer(conditions, batch, options.rescorer_cfg_coef, options.rescorer_fill)
        return Rescoring(score, options)

    def applies(self, step: Step) -> bool:
        """Whether this step is rescored.

        Steps are counted back from the last one, whose tokens are final, so that every stage of `rescorer_stages` is
        rescored.
        """
        options = self.options
        if options.rescorer_stages is not None and step.stage not in options.rescorer_stages:
            return False
        return (step.count - 1 - step.index) % options.rescorer_every == 0

    def noise(self, sampler: Sampler, probs: torch.Tensor, frames: torch.Tensor, length: int, step: Step
              ) -> tp.Optional[torch.Tensor]:
        """Return noise for both draws of a step, [B, M, card]; None if the step is not rescored or nothing is sampled.

        Both draws share noise, so identical distributions give identical tokens. Each frame of the clip has its own noise,
        so that a sample does not depend on which frames of its neighbours are predicted.

        Args:
            sampler: draws the noise.
            probs: [B, M, card].
            frames: their frames, Long [B, M].
            length: number of frames T.
            step: the step.
        """
        if not self.applies(step):
            return None
        noise = sampler.noise(len(probs), length, probs.shape[-1], place=(step.stage, step.index), device=probs.device)
        return None if noise is None else gather_frames(noise, frames)

    def rescore(self, candidate: Candidate, step: Step, sampler: Sampler, noise: tp.Optional[torch.Tensor]) -> Candidate:
        """Score a candidate by the rescorer and choose the step's tokens again.

        Args:
            candidate: MAGNeT's own filling, with its guided and tempered probabilities.
            step: the step.
            sampler: draws the tokens.
            noise: result of the method `noise` for this step.
        Returns:
            The candidate with the combined probabilities, and tokens drawn from them.
        """
        if not self.applies(step):
            return candidate
        theirs = gather_frames(self.score(candidate.tokens, step.stage).float(), candidate.frames)
        if self.options.rescorer_anneal:
            theirs = sharpen(theirs, min(step.temperature, 1.0))
        mixed = combine(candidate.probs, theirs, self.options.rescorer_weight)
        if self.options.rescorer_resample:
            sampled = sampler.draw(mixed, noise=noise)
        else:
            sampled = candidate.tokens[:, step.stage].gather(1, candidate.frames)
        return Candidate.fill(candidate.tokens, step.stage, candidate.masked, candidate.frames, sampled, mixed,
                              candidate.finite & mixed.isfinite().all())


def combine(magnet: torch.Tensor, rescorer: torch.Tensor, weight: float) -> torch.Tensor:
    """Mix probabilities, all [B, M, card]: w * p_MAGNeT + (1 - w) * p_rescorer; exactly p_MAGNeT at w = 1."""
    return magnet if weight == 1 else weight * magnet + (1 - weight) * rescorer


def sharpen(probs: torch.Tensor, temperature: float) -> torch.Tensor:
    """Apply a softmax temperature to probabilities [..., card] after the fact: p^(1 / temperature), normalised."""
    if temperature == 1:
        return probs
    return torch.softmax(probs.clamp_min(torch.finfo(probs.dtype).tiny).log() / temperature, dim=-1)
