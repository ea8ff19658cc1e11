"""MAGNeT's decoding (paper, section 3, figure 1): codebook after codebook, each in a few dozen parallel steps."""
import dataclasses
import typing as tp

import torch

from .. import schedules
from ..options import GenerationOptions
from . import remask, sampling, scoring
from .rescoring import Draw, Rescoring

Predict = tp.Callable[[torch.Tensor, int, float], torch.Tensor]
Callback = tp.Callable[[int, int], None]


class NonFiniteLogits(FloatingPointError):
    """The model gave logits that are infinite or not a number."""


@dataclasses.dataclass(frozen=True)
class Given:
    """What is fixed before decoding. A prompt is the case where the first frames of every codebook are known.

    Attributes:
        tokens: Long [B, K, T]; read where `known` is True.
        known: Bool [B, K, T].
    """
    tokens: torch.Tensor
    known: torch.Tensor

    @staticmethod
    def prompt(prompt: torch.Tensor, length: int) -> "Given":
        """The first frames `prompt` [B, K, P] of a clip of `length` frames."""
        B, K, P = prompt.shape
        if length <= P:
            raise ValueError(f"the prompt has {P} frames, but the clip only {length}; shorten the prompt or raise duration "
                             "(max_gen_len)")
        tokens = torch.zeros(B, K, length, dtype=torch.long, device=prompt.device)
        tokens[..., :P] = prompt
        known = torch.zeros_like(tokens, dtype=torch.bool)
        known[..., :P] = True
        return Given(tokens, known)


def decode(predict: Predict, given: Given, options: GenerationOptions, *, mask_id: int, span_len: int,
           generator: tp.Optional[torch.Generator] = None, callback: tp.Optional[Callback] = None,
           describe: tp.Callable[[], str] = lambda: "", rescoring: tp.Optional[Rescoring] = None) -> torch.Tensor:
    """Fill in everything that is not given.

    Args:
        predict: `predict(tokens [B, K, T], stage, guidance) -> logits [B, T, card]`, float32, guidance applied.
        given: fixed tokens.
        options: decoding settings.
        mask_id: the token that stands for "unknown".
        span_len: frames in a span (paper: 3).
        generator: source of all randomness, on the tokens' device.
        callback: called with (steps done, steps in all) after each step.
        describe: words on dtype and backend for the error about non-finite logits.
        rescoring: an external model's part in it; None is MAGNeT alone.
    Returns:
        Tokens, Long [B, K, T], none of them `mask_id`.
    Raises:
        ValueError: `decoding_steps` does not fit the number of codebooks.
        NonFiniteLogits: names stage and step.
    """
    K = given.tokens.shape[1]
    options.check_codebooks(K)
    tokens = torch.where(given.known, given.tokens, mask_id)
    done, total = 0, sum(options.decoding_steps)
    for stage in range(K):
        finite = []
        stage_steps = _decode_stage(predict, tokens, given.known[:, stage], stage, options, mask_id, span_len, generator,
                                    rescoring)
        for now, ok in stage_steps:
            tokens = now
            finite.append(ok)
            done += 1
            if callback is not None:
                callback(done, total)
        _check_finite(torch.stack(finite), stage, describe)
    return tokens


def _decode_stage(predict: Predict, tokens: torch.Tensor, known: torch.Tensor, stage: int, options: GenerationOptions,
                  mask_id: int, span_len: int, generator: tp.Optional[torch.Generator], rescoring: tp.Optional[Rescoring]
                  ) -> tp.Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Decode codebook `stage`, yielding after each step the tokens and whether the logits were finite (on the device)."""
    spans = _SpanMasker(known, span_len, options)
    codes = tokens[:, stage]                                             # [B, T]
    prompt = codes
    steps = options.decoding_steps[stage]
    for step, rate in enumerate(schedules.mask_rates(steps)):
        codes = torch.where(spans.mask(rate), mask_id, codes)
        codes = torch.where(known, prompt, codes)
        tokens = torch.cat([tokens[:, :stage], codes[:, None], tokens[:, stage + 1:]], dim=1)
        guidance = schedules.guidance_at(float(rate), options.max_cfg_coef, options.min_cfg_coef)
        logits = predict(tokens, stage, guidance).float()                # [B, T, card]
        temperature = schedules.temperature_at(step, steps, options.temp, options.anneal_temp)
        probs = torch.softmax(logits / temperature, dim=-1)
        draw = _drawer(probs, options, generator)
        sampled = draw(probs) if options.use_sampling else logits.argmax(dim=-1)
        unknown, finite = codes == mask_id, logits.isfinite().all()
        tokens = _fill(tokens, stage, unknown, sampled)
        # Scored before top-p: how likely the token was to the model, not to the sampler.
        sampled_probs = probs.gather(-1, sampled[..., None])[..., 0]
        if rescoring is not None and rescoring.applies(stage, step, steps):
            everywhere = torch.arange(tokens.shape[-1], device=tokens.device).expand(len(tokens), -1)
            rescored = rescoring.rescore(probs, everywhere, tokens, stage, temperature, draw)
            sampled_probs, finite = rescored.probs, finite & rescored.finite
            tokens = _fill(tokens, stage, unknown, rescored.tokens)
        codes = tokens[:, stage]
        spans.score(sampled_probs, unknown)
        yield tokens, finite


def _drawer(probs: torch.Tensor, options: GenerationOptions, generator: tp.Optional[torch.Generator]) -> Draw:
    """The step's way of choosing tokens; asked again it draws with the same noise."""
    if not options.use_sampling:
        return lambda weights: weights.argmax(dim=-1)
    race = sampling.race(probs, generator)
    return lambda weights: race(sampling.truncate(weights, options.top_k, options.top_p))


def _fill(tokens: torch.Tensor, stage: int, where: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`values` [B, T] put into codebook `stage` of `tokens` [B, K, T], where `where` [B, T] is True."""
    codes = torch.where(where, values, tokens[:, stage])
    return torch.cat([tokens[:, :stage], codes[:, None], tokens[:, stage + 1:]], dim=1)


class _SpanMasker:
    """Remembers how sure the last step was, and picks what to mask next. Works on one stage of a batch."""

    def __init__(self, known: torch.Tensor, span_len: int, options: GenerationOptions) -> None:
        T = known.shape[-1]
        self.length = T
        self.span_len = min(span_len, T)
        self.how = options.span_scoring
        # A span of one frame is its own chunk, whatever the arrangement.
        self.overlapping = options.span_arrangement == "stride1" and self.span_len > 1
        self.tokenwise = self.overlapping or self.span_len == 1
        free = ~known if self.tokenwise else scoring.any_in_chunk(~known, self.span_len)
        self.count = free.sum(dim=-1)                                    # [B]
        self.scores = remask.keep_given(torch.zeros_like(free, dtype=torch.float32), free)
        self.masked = free

    def mask(self, rate: torch.Tensor) -> torch.Tensor:
        """Bool [B, T]: what to mask at this mask rate (float32, no dimensions)."""
        count = (rate.to(self.count.device) * self.count).long().clamp_min(1)
        if self.overlapping:
            return remask.mask_overlapping(self.scores, count, self.span_len)
        mask = remask.mask_chunks(self.scores, count, self.span_len, self.length)
        self.masked = mask if self.tokenwise else scoring.any_in_chunk(mask, self.span_len)
        return mask

    def score(self, probs: torch.Tensor, filled: torch.Tensor) -> None:
        """Note the probability of each sampled token, [B, T], and which frames were filled in, Bool [B, T]."""
        if self.tokenwise:
            self.scores = remask.keep_given(-probs.log(), filled)
        else:
            self.scores = remask.keep_given(scoring.chunk_scores(probs, self.span_len, self.how), self.masked)


def _check_finite(finite: torch.Tensor, stage: int, describe: tp.Callable[[], str]) -> None:
    """One host read per stage: raise on the first step whose logits were not finite."""
    if not bool(finite.all()):
        step = int((~finite).int().argmax())
        raise NonFiniteLogits(f"logits are not finite at stage {stage}, step {step} {describe()}; use a wider dtype "
                              "(bfloat16 or float32) or lower max_cfg_coef")
