"""MAGNeT's decoding (arXiv 2401.04577, section 3 and figure 1): one codebook after another, each in parallel steps.

A step masks the least certain spans of the codebook, predicts them in one pass, samples them, optionally lets a second
model rescore them, and scores how certain they are, which decides what the next step masks.
"""
import typing as tp

import torch

from ..modules.tokens import gather_frames, replace_codebook
from .known_tokens import KnownTokens
from .options import GenerationOptions
from .random_source import GLOBAL, RandomSource
from .rescoring import NO_RESCORING, Candidate, NoRescoring
from .sampling import Sampler
from .span_masker import SpanMasker, SpanRule
from .span_order import fixed_scores
from .steps import Step, stages_of

Callback = tp.Callable[[int, int], None]
OnStep = tp.Callable[[Step, torch.Tensor], None]


class NonFiniteLogits(FloatingPointError):
    """The model produced logits that are infinite or not a number."""


class Predict(tp.Protocol):
    """A model as the decoder sees it."""

    def logits(self, tokens: torch.Tensor, stage: int, scale: float, frames: torch.Tensor) -> torch.Tensor:
        """Predict codebook `stage` at some frames.

        Args:
            tokens: Long [B, K, T], the mask token where unknown.
            stage: codebook to predict.
            scale: guidance scale of this step, to be applied by the model.
            frames: Long [B, M].
        Returns:
            Logits [B, M, card].
        """


def decode(predict: Predict, known: KnownTokens, options: GenerationOptions, *, mask_id: int, span_len: int,
           random: RandomSource = GLOBAL, callback: tp.Optional[Callback] = None,
           describe: tp.Callable[[], str] = lambda: "", rescoring: NoRescoring = NO_RESCORING,
           on_step: tp.Optional[OnStep] = None) -> torch.Tensor:
    """Fill in all tokens that are not known.

    Args:
        predict: the model.
        known: tokens to keep.
        options: decoding settings.
        mask_id: the token that stands for "unknown".
        span_len: frames in a span (3 in the paper).
        random: the source of all randomness.
        callback: called with (steps done, steps in all) after each step.
        describe: returns the dtype and backend for the error message about non-finite logits.
        rescoring: how a second model rescores candidates; by default, not at all.
        on_step: called after each step with (step, the frames of its codebook that were masked in it, Bool [B, T]).
    Returns:
        Tokens, Long [B, K, T], none of them `mask_id`.
    Raises:
        ValueError: `decoding_steps` does not fit the number of codebooks.
        NonFiniteLogits: the message names stage and step.
    """
    B, _, T = known.tokens.shape
    stages = stages_of(known, options)
    rule, clip = SpanRule.of(T, span_len, options), known.masked(mask_id)
    sampler = Sampler(options.use_sampling, options.top_k, options.top_p, random)
    done, total = 0, sum(len(stage.steps) for stage in stages)
    uniforms = sampler.uniforms(B, sum(options.decoding_steps), T, device=clip.device)
    rates = torch.tensor([float(step.rate) for stage in stages for step in stage.steps]).to(clip.device)
    for stage, stage_rates in zip(stages, rates.split([len(stage.steps) for stage in stages])):
        k = stage.codebook
        masker = SpanMasker(clip[:, k], known.known[:, k], stage.most_free, mask_id, rule, stage_rates,
                            fixed_scores(rule, B, k, random, clip.device) if options.fixed_order else None)
        tokens, finite = shown(clip, k, mask_id, options), []
        for step in stage.steps:
            candidate = decode_step(predict, tokens, step, masker, sampler, rescoring,
                                    None if uniforms is None else uniforms[:, stage.first + step.index])
            tokens = candidate.tokens
            finite.append(candidate.finite)
            done += 1
            if on_step is not None:
                on_step(step, candidate.masked)
            if callback is not None:
                callback(done, total)
        check_finite(finite, f"stage {k}, step", "max_cfg_coef", describe)
        clip = replace_codebook(clip, k, tokens[:, k])
    return clip


def shown(clip: torch.Tensor, stage: int, mask_id: int, options: GenerationOptions) -> torch.Tensor:
    """Return what the model reads while it decodes codebook `stage`: Long [B, K, T], see `upper_codebooks`."""
    if options.upper_codebooks == "shown":
        return clip
    return torch.cat([clip[:, :stage + 1], torch.full_like(clip[:, stage + 1:], mask_id)], dim=1)


def decode_step(predict: Predict, tokens: torch.Tensor, step: Step, masker: SpanMasker, sampler: Sampler,
                rescoring: NoRescoring, uniforms: tp.Optional[torch.Tensor]) -> Candidate:
    """Mask, predict, sample, rescore, score. `tokens` is Long [B, K, T]; the result holds the new ones.

    Each frame has its own random numbers, `uniforms` [B, T, rounds], whether or not it is predicted in this step.
    """
    tokens, masked = masker.mask(tokens, step)                                          # masked: [B, T]
    frames = masker.frames(masked, step)                                                # [B, M]
    logits = predict.logits(tokens, step.stage, step.guidance, frames).float()          # [B, M, card]
    own = None if uniforms is None else gather_frames(uniforms, frames)                 # [B, M, rounds]
    candidate = choose_tokens(logits, tokens, step, masked, frames, sampler, rescoring, own)
    masker.score(candidate.likelihood(), masked)
    return candidate


def choose_tokens(logits: torch.Tensor, tokens: torch.Tensor, step: Step, masked: torch.Tensor, frames: torch.Tensor,
                  sampler: Sampler, rescoring: NoRescoring, uniforms: tp.Optional[torch.Tensor]) -> Candidate:
    """Sample the tokens of the masked frames and rescore them.

    Args:
        logits: guided, float32 [B, M, card].
        tokens: Long [B, K, T].
        step: the step.
        masked: frames to fill in, Bool [B, T].
        frames: frames of the logits, Long [B, M].
        sampler: chooses tokens.
        rescoring: how a second model takes part.
        uniforms: random numbers, [B, M, rounds].
    """
    probs = torch.softmax(logits / step.temperature, dim=-1)
    noise = rescoring.noise(sampler, probs, frames, tokens.shape[-1], step)
    sampled = sampler.sample(logits, probs, uniforms, noise)                            # [B, M]
    candidate = Candidate.fill(tokens, step.stage, masked, frames, sampled, probs, logits.isfinite().all())
    return rescoring.rescore(candidate, step, sampler, noise)


def check_finite(finite: tp.Sequence[torch.Tensor], place: str, setting: str, describe: tp.Callable[[], str],
                 first: int = 0) -> None:
    """Raise NonFiniteLogits at the first False in `finite` (Bool [], on the device), counting from `first`.

    Synchronizes once.
    """
    flags = torch.stack(list(finite))
    if not bool(flags.all()):
        raise non_finite(f"{place} {first + int((~flags).int().argmax())}", setting, describe)


def non_finite(place: str, setting: str, describe: tp.Callable[[], str]) -> NonFiniteLogits:
    """Return the error for logits that are not finite."""
    return NonFiniteLogits(f"logits are not finite at {place} {describe()}; use a wider dtype (bfloat16 or float32) or "
                           f"lower {setting}")
