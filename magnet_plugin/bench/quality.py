"""`magnet bench quality`: what settings cost or gain, on held-out captions with several seeds."""
from __future__ import annotations

import dataclasses
import time
import typing as tp
from pathlib import Path

import torch

from ..metrics.clips import batches, read_clips
from ..metrics.codec import reconstruct
from ..metrics.frechet import frechet_distance, gaussian
from ..metrics.instruments import InstrumentClassifier, agreement
from ..metrics.report import Heard, listen

BATCH = 8
Say = tp.Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row: a model by name, and arguments of `set_generation_params`."""
    name: str
    params: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    model: str = "//bundled/magnet-16khz"


SPEED = [Setting("exact"), Setting("precision=bfloat16", {"precision": "bfloat16"}),
         Setting("precision=int8", {"precision": "int8"}), Setting("guidance_every=2", {"guidance_every": 2}),
         Setting("guidance_every=3", {"guidance_every": 3}),
         Setting("guidance_interval=0..0.9", {"guidance_interval": (0.0, 0.9)}),
         Setting("guidance_interval=0..0.7", {"guidance_interval": (0.0, 0.7)}),
         Setting("guidance_interval=0.3..1", {"guidance_interval": (0.3, 1.0)}),
         Setting("half the steps", {"decoding_steps": [10, 5, 5, 5]})]
TABLES: dict[str, list[Setting]] = {"speed": SPEED}


class Judge:
    """The held-out clips, and what is made of their captions.

    Args:
        codec: of all models that are compared.
        splits: manifest folders of training and of held-out clips.
        clips: how many held-out clips.
    """

    def __init__(self, codec: tp.Any, splits: tuple[Path, Path], clips: int) -> None:
        self.codec, self.rate = codec, codec.sample_rate
        self.classifier = InstrumentClassifier.train(splits[0])
        self.clips = read_clips(splits[1], clips)
        self.captions = [clip.fact("description") for clip in self.clips]
        self.labels = [clip.fact("instrument") for clip in self.clips]
        real = self.hear(wav for _, wav in batches(self.clips, self.rate, BATCH))
        self.reference = gaussian(real.latents)
        self.bounds = {"real clips": self.figures(real),
                       "through the codec": self.figures(self.hear(reconstruct(codec, wav) for _, wav in
                                                                   batches(self.clips, self.rate, BATCH)))}

    def hear(self, audio: tp.Iterable[torch.Tensor]) -> Heard:
        """Instruments and latents of batches of audio."""
        return listen(self.classifier, self.codec, self.rate, audio)

    def figures(self, heard: Heard) -> dict[str, float]:
        """Instrument accuracy and Fréchet distance to the held-out clips."""
        return {"accuracy": agreement(heard.instruments, self.labels),
                "frechet": frechet_distance(gaussian(heard.latents), self.reference)}

    def try_out(self, setting: Setting, seeds: tp.Sequence[int], load: tp.Callable[[Setting], tp.Any], say: Say
                ) -> list[dict[str, float]]:
        """Figures of one setting, a dict per seed; `seconds` is per clip, of generation alone."""
        model = load(setting)
        found = []
        for seed in seeds:
            started = time.perf_counter()
            audio = [model.generate(self.captions[first:first + BATCH], seed=1000 * seed + first).float().cpu().mean(1, True)
                     for first in range(0, len(self.captions), BATCH)]
            took = (time.perf_counter() - started) / len(self.captions)
            found.append({**self.figures(self.hear(audio)), "seconds": took})
            say(f"  {setting.name}, seed {seed}: " + ", ".join(f"{key} {value:.3g}" for key, value in found[-1].items()))
        return found


def load(setting: Setting) -> tp.Any:
    """The setting's model, ready to generate."""
    from .. import MAGNeT
    model = MAGNeT.get_pretrained(setting.model, device="cpu")
    model.set_generation_params(**setting.params)
    return model


def measure(table: str, splits: tuple[Path, Path], clips: int, seeds: tp.Sequence[int], say: Say,
            keep: tp.Callable[[dict[str, tp.Any]], None]) -> dict[str, tp.Any]:
    """All rows of a table; `keep` gets the record after every row."""
    rows = TABLES[table]
    judge = Judge(load(rows[0]).compression_model, splits, clips)
    found: dict[str, tp.Any] = {"table": table, "clips": len(judge.clips), "seeds": list(seeds), "bounds": judge.bounds,
                                "rows": {}}
    for setting in rows:
        found["rows"][setting.name] = judge.try_out(setting, seeds, load, say)
        keep(found)
    return found
