"""Decoding with functions in the place of a model."""
import typing as tp

import torch

from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.magnet import OnStep, decode
from magnet_plugin.decoding.options import GenerationOptions
from magnet_plugin.decoding.random_source import RandomSource, Seed, sample_seeds
from magnet_plugin.decoding.rescoring import NO_RESCORING, Rescoring, Score
from magnet_plugin.modules.tokens import gather_frames

K, CARD, SPAN_LEN = 4, 12, 3
STEPS = (5, 3, 2, 1)
AllFrames = tp.Callable[[torch.Tensor, int, float], torch.Tensor]


class Oracle:
    """A `decoding.magnet.Predict` from a function (tokens [B, K, T], stage, scale) -> logits [B, T, card]."""

    def __init__(self, function: AllFrames) -> None:
        self.function = function

    def logits(self, tokens: torch.Tensor, stage: int, scale: float, frames: torch.Tensor) -> torch.Tensor:
        return gather_frames(self.function(tokens, stage, scale), frames)


def random_logits(batch: int, length: int, seed: int = 0) -> AllFrames:
    """Logits that depend on the stage, the frame and the number of masked tokens."""
    table = torch.randn(K, batch, length, CARD, generator=torch.Generator().manual_seed(seed))
    return lambda tokens, stage, scale: table[stage] * (1 + (tokens == CARD).float().mean())


def nothing_known(batch: int, length: int) -> KnownTokens:
    return KnownTokens.from_prompt(torch.zeros(batch, K, 0, dtype=torch.long), length)


def run(predict: AllFrames, known: KnownTokens, score: tp.Optional[Score] = None, seed: Seed = 0,
        on_step: tp.Optional[OnStep] = None, **options: tp.Any) -> torch.Tensor:
    """Decode with `predict` in the place of the model and `score` in that of the rescorer."""
    settings = GenerationOptions(**{"decoding_steps": STEPS, **options})
    rescoring = NO_RESCORING if score is None or not settings.rescores else Rescoring(score, settings)
    return decode(Oracle(predict), known, settings, mask_id=CARD, span_len=SPAN_LEN,
                  random=RandomSource.seeded(sample_seeds(seed, len(known.tokens))), rescoring=rescoring,
                  on_step=on_step)
