"""`magnet bench quality`: the effect of settings on quality, on held-out captions with several seeds."""
from __future__ import annotations

import dataclasses
import json
import time
import typing as tp
from pathlib import Path

import torch
from audiocraft.modules.conditioners import ConditioningAttributes

from ..data.clips import batches, read_clips
from ..metrics.codec import reconstruct
from ..metrics.frechet import fit_gaussian, frechet_distance
from ..metrics.instruments import InstrumentClassifier, accuracy
from ..metrics.report import extract_features
from ..models.autoregressive import AutoregressiveModel
from ..models.auxiliary import load_auxiliary
from ..models.rescorers import CausalRescorer
from . import records
from .measure import Log

BATCH = 8
MAGNET, MUSICGEN, HYBRID = "//bundled/magnet-16khz", "//bundled/musicgen-16khz", "//bundled/hybrid-16khz"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of a table."""
    name: str
    params: dict[str, tp.Any] = dataclasses.field(default_factory=dict)     # of `set_generation_params`; none for MusicGen
    model: str = MAGNET


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


@dataclasses.dataclass
class Judge:
    """Score clips that were generated from held-out captions."""
    captions: list[str]
    labels: list[str]                       # instrument of each caption
    classifier: InstrumentClassifier
    codec: tp.Any                           # shared by all models that are compared
    reference: tp.Any                       # Gaussian of the latents of the real held-out clips
    likelihood_model: CausalRescorer

    @staticmethod
    def load(codec: tp.Any, splits: tuple[Path, Path], clips: int) -> tuple[Judge, dict[str, dict[str, float]]]:
        """Train the classifier and score the real clips.

        Args:
            codec: of all models that are compared.
            splits: manifest folders of the training and of the held-out clips.
            clips: number of held-out clips.
        Returns:
            The judge, and the scores of the real clips and of their reconstruction by the codec.
        """
        classifier, heldout = InstrumentClassifier.train(splits[0]), read_clips(splits[1], clips)
        audio = [wav for _, wav in batches(heldout, codec.sample_rate, BATCH)]
        reference = fit_gaussian(extract_features(classifier, codec, codec.sample_rate, audio).latents)
        model = CausalRescorer(load_auxiliary(MUSICGEN, codec, "cpu", "the likelihood model").lm)
        judge = Judge([clip.field("description") for clip in heldout], [clip.field("instrument") for clip in heldout],
                      classifier, codec, reference, model)
        decoded, tokens = [reconstruct(codec, wav) for wav in audio], [codec.encode(wav)[0] for wav in audio]
        return judge, {"real clips": judge.scores(audio),
                       "through the codec": {**judge.scores(decoded), "likelihood": judge.likelihood(tokens)}}

    def scores(self, audio: tp.Sequence[torch.Tensor]) -> dict[str, float]:
        """Return instrument accuracy, and Fréchet distance to the held-out clips, of batches of audio [B, 1, samples]."""
        found = extract_features(self.classifier, self.codec, self.codec.sample_rate, audio)
        return {"accuracy": accuracy(found.instruments, self.labels),
                "frechet": frechet_distance(fit_gaussian(found.latents), self.reference)}

    @torch.no_grad()
    def likelihood(self, batches: tp.Sequence[torch.Tensor]) -> float:
        """Return the mean log-likelihood of tokens [B, K, T] under MusicGen given the captions, in nats per token."""
        total, count, first = 0.0, 0, 0
        for tokens in batches:
            texts = self.captions[first:first + len(tokens)]
            conditions = [ConditioningAttributes(text={"description": text}) for text in texts]
            score = self.likelihood_model.scorer(conditions, len(texts))
            for stage in range(tokens.shape[1]):
                probabilities = score(tokens, stage).gather(-1, tokens[:, stage, :, None])
                total += float(probabilities.clamp_min(1e-20).log().sum())
                count += probabilities.numel()
            first += len(tokens)
        return total / count

    def evaluate(self, model: tp.Any, seeds: tp.Sequence[int], log: Log) -> list[dict[str, float]]:
        """Generate all captions with each seed; return scores per seed, and `seconds` of generation per clip."""
        found = []
        for seed in seeds:
            started = time.perf_counter()
            made = [model.generate(self.captions[first:first + BATCH], return_tokens=True, seed=1000 * seed + first)
                    for first in range(0, len(self.captions), BATCH)]
            took = (time.perf_counter() - started) / len(self.captions)
            audio, tokens = [wav.float().cpu().mean(1, True) for wav, _ in made], [tokens.cpu() for _, tokens in made]
            found.append({**self.scores(audio), "likelihood": self.likelihood(tokens), "seconds": took})
            log(f"  seed {seed}: " + ", ".join(f"{key} {value:.3g}" for key, value in found[-1].items()))
        return found


def load(setting: Setting) -> tp.Any:
    """Load the model of a row, ready to generate."""
    from .. import MAGNeT
    if setting.model == MUSICGEN:
        return AutoregressiveModel.load(setting.model)
    model = MAGNeT.get_pretrained(setting.model, device="cpu")
    model.set_generation_params(**setting.params)
    return model


def measure(table: str, data: tp.Optional[Path], clips: int, seeds: tp.Sequence[int], log: Log, folder: Path,
            only: tp.Sequence[str] = ()) -> Path:
    """Measure the rows of a table and write `quality-TABLE.json`, which is complete after every row.

    Rows of an earlier record with the same clips, seeds and bounds are kept and not measured again.

    Args:
        table: key of `TABLES`.
        data: folder of the folk data set, by default that of `solver=magnet`.
        clips: number of held-out clips.
        seeds: seeds of generation.
        log: receives progress messages.
        folder: for the record.
        only: measure only rows whose names contain one of these; all if empty.
    Returns:
        The path of the record.
    Raises:
        ValueError: if there is no such table or row.
    """
    if table not in TABLES:
        raise ValueError(f"--table {table}: choose one of {', '.join(TABLES)}")
    rows = [row for row in TABLES[table] if not only or any(part in row.name for part in only)]
    if not rows:
        raise ValueError(f"--only {' '.join(only)}: no row of the table {table} has such a name")
    record, path = records.new_record("quality"), folder / f"quality-{table}.json"
    judge, bounds = Judge.load(load(rows[0]).compression_model, folk_splits(data), clips)
    found: dict[str, tp.Any] = {"table": table, "clips": len(judge.captions), "seeds": list(seeds), "bounds": bounds}
    before = json.loads(path.read_text())["cases"][0] if path.exists() else {}
    done = dict(before["rows"]) if before and all(before[name] == found[name] for name in found) else {}
    for setting in rows:
        if setting.name not in done:
            log(f"  {setting.name}")
            done[setting.name] = judge.evaluate(load(setting), seeds, log)
            ordered = {row.name: done[row.name] for row in TABLES[table] if row.name in done}
            records.write({**record, "cases": [{**found, "rows": ordered}]}, path)
    return path


def folk_splits(folder: tp.Optional[Path]) -> tuple[Path, Path]:
    """Return the manifest folders of training and held-out clips below `folder`, by default those of `solver=magnet`, whose
    data set is created if it does not exist."""
    if folder is None:
        from ..train import main, prepare_data
        cfg = main.get_xp(["solver=magnet"]).cfg
        prepare_data(cfg)
        folder = Path(cfg.datasource.folk.out)
    return folder / "egs" / "train", folder / "egs" / "evaluate"
