"""`magnet bench quality`: what settings cost or gain, on held-out captions with several seeds."""
from __future__ import annotations

import dataclasses
import time
import typing as tp
from pathlib import Path

import torch
from audiocraft.modules.conditioners import ConditioningAttributes

from ..data.clips import batches, read_clips
from ..metrics.codec import reconstruct
from ..metrics.frechet import fit_gaussian, frechet_distance
from ..metrics.instruments import InstrumentClassifier, accuracy
from ..metrics.report import Features, extract_features
from ..models.auxiliary import AutoregressiveModel, load_auxiliary
from ..models.rescorers import CausalRescorer

BATCH = 8
Say = tp.Callable[[str], None]


MAGNET, MUSICGEN, HYBRID = "//bundled/magnet-16khz", "//bundled/musicgen-16khz", "//bundled/hybrid-16khz"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row: a model by name, and arguments of `set_generation_params` (a MusicGen has none)."""
    name: str
    params: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    model: str = MAGNET


def rescored(weight: float, note: str = "", **others: tp.Any) -> Setting:
    """MAGNeT with the MusicGen as its rescorer."""
    return Setting(f"rescored, w = {weight}{note}", {"rescorer": MUSICGEN, "rescorer_weight": weight, **others})


SPEED = [Setting("exact"), Setting("precision=bfloat16", {"precision": "bfloat16"}),
         Setting("precision=int8", {"precision": "int8"}), Setting("guidance_every=2", {"guidance_every": 2}),
         Setting("guidance_interval=0..0.8", {"guidance_interval": (0.0, 0.8)}),
         Setting("half the steps", {"decoding_steps": [10, 5, 5, 5]})]
RESCORING = [Setting("MAGNeT alone (w = 1)"), *(rescored(weight) for weight in (0.9, 0.7, 0.5, 0.3)),
             rescored(0.5, ", greedy filling", rescorer_fill="greedy"),
             rescored(0.5, ", not annealed", rescorer_anneal=False),
             rescored(0.5, ", re-masking alone", rescorer_resample=False),
             *(Setting(f"MusicGen begins, {seconds} s", {"prompt_model": MUSICGEN, "prompt_duration": seconds})
               for seconds in (0.5, 1.0, 2.0)),
             *(Setting(f"hybrid, {seconds} s", {"prompt_duration": seconds}, HYBRID) for seconds in (0.0, 0.5, 1.0, 2.0)),
             Setting("MusicGen alone", model=MUSICGEN)]
TABLES: dict[str, list[Setting]] = {"speed": SPEED, "rescoring": RESCORING}


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
        self.captions = [clip.field("description") for clip in self.clips]
        self.labels = [clip.field("instrument") for clip in self.clips]
        real = self.hear(wav for _, wav in batches(self.clips, self.rate, BATCH))
        self.reference = fit_gaussian(real.latents)
        self.score = CausalRescorer(load_auxiliary(MUSICGEN, codec, "cpu", "the judge").lm)
        decoded = self.hear(reconstruct(codec, wav) for _, wav in batches(self.clips, self.rate, BATCH))
        tokens = [codec.encode(wav)[0] for _, wav in batches(self.clips, self.rate, BATCH)]
        self.bounds = {"real clips": self.figures(real),
                       "through the codec": {**self.figures(decoded), "likelihood": self.likelihood(tokens)}}

    def hear(self, audio: tp.Iterable[torch.Tensor]) -> Features:
        """Instruments and latents of batches of audio."""
        return extract_features(self.classifier, self.codec, self.rate, audio)

    def figures(self, heard: Features) -> dict[str, float]:
        """Instrument accuracy and Fréchet distance to the held-out clips."""
        return {"accuracy": accuracy(heard.instruments, self.labels),
                "frechet": frechet_distance(fit_gaussian(heard.latents), self.reference)}

    @torch.no_grad()
    def likelihood(self, batches: tp.Sequence[torch.Tensor]) -> float:
        """Mean log-likelihood of tokens [B, K, T] under the bundled MusicGen, given the captions, in nats per token."""
        total, count, first = 0.0, 0, 0
        for tokens in batches:
            texts = self.captions[first:first + len(tokens)]
            score = self.score.scorer([ConditioningAttributes(text={"description": text}) for text in texts], len(texts))
            for stage in range(tokens.shape[1]):
                chance = score(tokens, stage).gather(-1, tokens[:, stage, :, None])
                total, count = total + float(chance.clamp_min(1e-20).log().sum()), count + chance.numel()
            first += len(tokens)
        return total / count

    def try_out(self, setting: Setting, seeds: tp.Sequence[int], load: tp.Callable[[Setting], tp.Any], say: Say
                ) -> list[dict[str, float]]:
        """Figures of one setting, a dict per seed; `seconds` is per clip, of generation alone."""
        model = load(setting)
        found = []
        for seed in seeds:
            started = time.perf_counter()
            made = [model.generate(self.captions[first:first + BATCH], return_tokens=True, seed=1000 * seed + first)
                    for first in range(0, len(self.captions), BATCH)]
            took = (time.perf_counter() - started) / len(self.captions)
            audio, tokens = [wav.float().cpu().mean(1, True) for wav, _ in made], [tokens.cpu() for _, tokens in made]
            found.append({**self.figures(self.hear(audio)), "likelihood": self.likelihood(tokens), "seconds": took})
            say(f"  {setting.name}, seed {seed}: " + ", ".join(f"{key} {value:.3g}" for key, value in found[-1].items()))
        return found


def load(setting: Setting) -> tp.Any:
    """The setting's model, ready to generate."""
    from .. import MAGNeT
    if setting.model == MUSICGEN:
        return AutoregressiveModel.load(setting.model)
    model = MAGNeT.get_pretrained(setting.model, device="cpu")
    model.set_generation_params(**setting.params)
    return model


def measure(table: str, splits: tuple[Path, Path], clips: int, seeds: tp.Sequence[int], say: Say,
            keep: tp.Callable[[dict[str, tp.Any]], None], only: tp.Sequence[str] = (),
            before: tp.Optional[dict[str, tp.Any]] = None) -> dict[str, tp.Any]:
    """The rows of a table whose names hold one of `only` (all, if there is none).

    Args:
        keep: gets the record after every row.
        before: a record of the same clips and seeds, whose rows are not measured again.
    """
    rows = [row for row in TABLES[table] if not only or any(part in row.name for part in only)]
    judge = Judge(load(rows[0]).compression_model, splits, clips)
    found: dict[str, tp.Any] = {"table": table, "clips": len(judge.clips), "seeds": list(seeds), "bounds": judge.bounds}
    done = before["rows"] if before is not None and all(before[name] == found[name] for name in found) else {}
    found["rows"] = dict(done)
    for setting in rows:
        if setting.name not in done:
            found["rows"][setting.name] = judge.try_out(setting, seeds, load, say)
            found["rows"] = {row.name: found["rows"][row.name] for row in TABLES[table] if row.name in found["rows"]}
            keep(found)
    return found
