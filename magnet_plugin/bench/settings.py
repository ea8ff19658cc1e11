"""What `magnet bench` compares: sizes of transformers, and settings of the bundled models.

This imports nothing heavy, so that the command's help can list the names.
"""
from __future__ import annotations

import dataclasses
import typing as tp


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a transformer."""
    dim: int
    layers: int
    heads: int


SIZES = {"tiny": Size(128, 4, 4), "dim512": Size(512, 6, 8), "dim1024": Size(1024, 6, 16), "small": Size(1024, 24, 16),
         "medium": Size(1536, 48, 24)}

MAGNET, MUSICGEN, HYBRID = "//bundled/magnet-16khz", "//bundled/musicgen-16khz", "//bundled/hybrid-16khz"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of a table."""
    name: str
    params: dict[str, tp.Any] = dataclasses.field(default_factory=dict)     # of `set_generation_params`; none for MusicGen
    model: str = MAGNET
    training: tuple[str, ...] = ()      # overrides of `dora run`, for a model of its own in the place of `model`


def rescored(weight: float, note: str = "", **others: tp.Any) -> Setting:
    """Return a row of MAGNeT rescored by MusicGen."""
    return Setting(f"rescored, w = {weight}{note}", {"rescorer": MUSICGEN, "rescorer_weight": weight, **others})


SPEED = [Setting("exact"), Setting("precision=bfloat16", {"precision": "bfloat16"}),
         Setting("precision=int8", {"precision": "int8"}), Setting("guidance_every=2", {"guidance_every": 2}),
         Setting("guidance_interval=0..0.8", {"guidance_interval": (0.0, 0.8)}),
         Setting("half the steps", {"decoding_steps": [10, 5, 5, 5]})]
RESCORING = [Setting("MAGNeT only (w = 1)"), *(rescored(weight) for weight in (0.9, 0.7, 0.5, 0.3)),
             rescored(0.5, ", greedy filling", rescorer_fill="greedy"),
             rescored(0.5, ", not annealed", rescorer_anneal=False),
             rescored(0.5, ", re-masking only", rescorer_resample=False),
             *(Setting(f"MusicGen prompt, {seconds} s", {"prompt_model": MUSICGEN, "prompt_duration": seconds})
               for seconds in (0.5, 1.0, 2.0)),
             *(Setting(f"hybrid, {seconds} s", {"prompt_duration": seconds}, HYBRID) for seconds in (0.0, 0.5, 1.0, 2.0)),
             Setting("MusicGen only", model=MUSICGEN)]
TABLES: dict[str, list[Setting]] = {"speed": SPEED, "rescoring": RESCORING}
