"""The steps of the decoding: mask rate, guidance scale and temperature of each (sections 3.1 to 3.3)."""
import dataclasses
import typing as tp

import torch

from ..modules import schedules
from .known_tokens import KnownTokens
from .options import GenerationOptions


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a codebook.

    Attributes:
        stage: the codebook.
        index: number of the step within the stage, from 0.
        count: steps of the stage.
        rate: fraction of the free frames to mask, float32 [] on the CPU.
        guidance: guidance scale.
        temperature: softmax temperature.
    """
    stage: int
    index: int
    count: int
    rate: torch.Tensor
    guidance: float
    temperature: float


@dataclasses.dataclass(frozen=True)
class Stage:
    """The decoding of a codebook in which something is unknown.

    Attributes:
        codebook: the codebook.
        first: number of steps that earlier codebooks have, whether or not something is unknown in them.
        steps: its steps.
        most_free: the largest number of unknown frames that a sample has.
    """
    codebook: int
    first: int
    steps: list["Step"]
    most_free: int


def stages_of(known: KnownTokens, options: GenerationOptions) -> list[Stage]:
    """List the codebooks to decode, in order; those that are wholly known in every sample are omitted."""
    options.check_codebooks(known.tokens.shape[1])
    return [Stage(k, sum(options.decoding_steps[:k]), list(steps_of(k, options)), free)
            for k, free in enumerate(known.most_free()) if free]


def steps_of(stage: int, options: GenerationOptions) -> tp.Iterator[Step]:
    """Yield the steps of a codebook under the schedules that the options set."""
    count = options.decoding_steps[stage]
    low, high = options.guidance_interval
    for index, rate in enumerate(schedules.mask_rates(count)):
        guided = low <= max(float(rate), 0.0) <= high           # The last float32 cosine lies a hair below 0.
        scale = schedules.guidance_at(float(rate), options.max_cfg_coef, options.min_cfg_coef) if guided else 1.0
        temperature = schedules.temperature_at(index, count, options.temp, options.anneal_temp)
        yield Step(stage, index, count, rate, scale, temperature)
