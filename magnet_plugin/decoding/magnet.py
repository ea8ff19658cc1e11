"""MAGNeT's decoding (paper, section 3, figure 1): codebook after codebook, each in a few dozen parallel steps."""
import dataclasses
import typing as tp

import torch

from ..modules import schedules
from ..modules.spans import chunk_index
from . import sampling, scoring
from . import span_masker as remask
from .options import GenerationOptions
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
    most_free = (~given.known).sum(dim=-1).amax(dim=0).tolist()         # shapes hang on it, so the host has to know
    for stage in range(K):
        finite = []
        stage_steps = _decode_stage(predict, tokens, given.known[:, stage], most_free[stage], stage, options, mask_id,
                                    span_len, generator, rescoring)
        for now, ok in stage_steps:
            tokens = now
            finite.append(ok)
            done += 1
            if callback is not None:
                callback(done, total)
        _check_finite(torch.stack(finite), stage, describe)
    return tokens


def _decode_stage(predict: Predict, tokens: torch.Tensor, known: torch.Tensor, most: int, stage: int,
                  options: GenerationOptions, mask_id: int, span_len: int, generator: tp.Optional[torch.Generator],
                  rescoring: tp.Optional[Rescoring]
                  ) -> tp.Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Decode codebook `stage`, yielding after each step the tokens and whether the logits were finite (on the device)."""
    spans = _SpanMasker(known, most, span_len, options)
    codes = tokens[:, stage]                                             # [B, T]
    prompt = codes
    steps = options.decoding_steps[stage]
    for step, rate in enumerate(schedules.mask_rates(steps)):
        codes = torch.where(spans.mask(rate), mask_id, codes)
        codes = torch.where(known, prompt, codes)
        tokens = torch.cat([tokens[:, :stage], codes[:, None], tokens[:, stage + 1:]], dim=1)
        unknown = codes == mask_id
        positions = spans.positions(unknown, step, float(rate))          # [B, M]
        logits = _logits(predict, tokens, stage, _guidance(float(rate), options), positions)      # [B, M, card]
        temperature = schedules.temperature_at(step, steps, options.temp, options.anneal_temp)
        probs = torch.softmax(logits / temperature, dim=-1)
        rescored = rescoring is not None and rescoring.applies(stage, step, steps)
        draw = _drawer(probs, options, generator, again=rescored)
        sampled = draw(probs) if options.use_sampling else logits.argmax(dim=-1)
        tokens, finite = _fill(tokens, stage, unknown, positions, sampled), logits.isfinite().all()
        # Scored before top-p: how likely the token was to the model, not to the sampler.
        likely = probs.gather(-1, sampled[..., None])[..., 0]            # [B, M]
        if rescored:
            final = tp.cast(Rescoring, rescoring).rescore(probs, positions, tokens, stage, temperature, draw)
            tokens, finite = _fill(tokens, stage, unknown, positions, final.tokens), finite & final.finite
            likely = final.probs
        codes = tokens[:, stage]
        spans.score(torch.ones_like(codes, dtype=likely.dtype).scatter(1, positions, likely), unknown)
        yield tokens, finite


def _drawer(probs: torch.Tensor, options: GenerationOptions, generator: tp.Optional[torch.Generator], again: bool) -> Draw:
    """The step's way of choosing tokens; if it is to be asked `again`, it draws with the same noise then."""
    if not options.use_sampling:
        return lambda weights: weights.argmax(dim=-1)
    noise = sampling.race_noise(probs, generator) if again else None
    return lambda weights: sampling.draw(weights, options.top_k, options.top_p, generator, noise)


def _fill(tokens: torch.Tensor, stage: int, where: torch.Tensor, positions: torch.Tensor, values: torch.Tensor
          ) -> torch.Tensor:
    """`values` [B, M] put into codebook `stage` of `tokens` [B, K, T] at `positions`, where Bool `where` [B, T] is True."""
    codes = tokens[:, stage]
    codes = torch.where(where, codes.scatter(1, positions, values), codes)
    return torch.cat([tokens[:, :stage], codes[:, None], tokens[:, stage + 1:]], dim=1)


def _guidance(rate: float, options: GenerationOptions) -> float:
    low, high = options.guidance_interval
    guided = low <= max(rate, 0.0) <= high              # the last float32 cosine lies a hair below 0
    return schedules.guidance_at(rate, options.max_cfg_coef, options.min_cfg_coef) if guided else 1.0


def _logits(predict: Predict, tokens: torch.Tensor, stage: int, guidance: float, positions: torch.Tensor) -> torch.Tensor:
    """Float32 logits at `positions` [B, M]; a `predict` with a method `at` computes no others."""
    if hasattr(predict, "at"):
        return predict.at(tokens, stage, guidance, positions).float()
    logits = predict(tokens, stage, guidance).float()
    return logits.gather(1, positions[..., None].expand(-1, -1, logits.shape[-1]))


class _SpanMasker:
    """Remembers how sure the last step was, and picks what to mask next. Works on one stage of a batch."""

    def __init__(self, known: torch.Tensor, most: int, span_len: int, options: GenerationOptions) -> None:
        T = known.shape[-1]
        self.length = T
        self.span_len = min(span_len, T)
        self.how = options.span_scoring
        # A span of one frame is its own chunk, whatever the arrangement.
        self.overlapping = options.span_arrangement == "stride1" and self.span_len > 1
        self.tokenwise = self.overlapping or self.span_len == 1
        free = ~known if self.tokenwise else scoring.any_in_chunk(~known, self.span_len)
        self.count = free.sum(dim=-1)                                    # [B]
        self.most = most if self.tokenwise else min(most, free.shape[-1])        # no less than any of `count`
        self.scores = remask.keep_given(torch.zeros_like(free, dtype=torch.float32), free)
        self.masked = free

    def positions(self, unknown: torch.Tensor, step: int, rate: float) -> torch.Tensor:
        """The frames whose probabilities are needed, Long [B, M]; the rest of a row is filled up with other frames.

        M is known from the schedule alone, so that nothing waits for the device: it bounds what `mask` can mask.

        Args:
            unknown: frames that hold the mask token, Bool [B, T].
            step: step within the stage; the first one fills everything that is free.
            rate: its mask rate.
        """
        count = max(int(torch.tensor(rate) * self.most) if step else self.most, 1)
        if self.overlapping:
            room = max(count, self.span_len) + (self.span_len if step else 0)
        else:
            room = count if self.tokenwise else count * self.span_len
            if not self.tokenwise:      # a span is scored as a whole, with its given frames
                unknown = scoring.any_in_chunk(unknown, self.span_len)[:, chunk_index(self.length, self.span_len,
                                                                                      unknown.device)]
        return unknown.long().argsort(dim=-1, descending=True, stable=True)[:, :min(room, self.length)]

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
