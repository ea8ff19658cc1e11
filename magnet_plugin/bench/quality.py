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
from ..metrics.features import ClipFeatures
from ..metrics.instruments import InstrumentClassifier
from ..models.autoregressive import AutoregressiveModel
from ..models.auxiliary import load_auxiliary
from ..models.rescorers import CausalRescorer
from . import records
from .measure import Log
from .settings import MUSICGEN, TABLES, Setting

BATCH = 8


@dataclasses.dataclass
class Judge:
    """Score clips that were generated from held-out captions."""
    captions: list[str]
    labels: list[str]                       # instrument of each caption
    reference: ClipFeatures                 # of the real held-out clips; its codec is that of all models that are compared
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
        reference = ClipFeatures(codec, classifier).add_batches(audio)
        model = CausalRescorer(load_auxiliary(MUSICGEN, codec, "cpu", "the likelihood model").lm)
        judge = Judge([clip.field("description") for clip in heldout], [clip.field("instrument") for clip in heldout],
                      reference, model)
        decoded, tokens = [reconstruct(codec, wav) for wav in audio], [codec.encode(wav)[0] for wav in audio]
        return judge, {"real clips": judge.scores(audio),
                       "through the codec": {**judge.scores(decoded), "likelihood": judge.likelihood(tokens)}}

    def scores(self, audio: tp.Sequence[torch.Tensor]) -> dict[str, float]:
        """Return instrument accuracy, and Fréchet distance to the held-out clips, of batches of audio [B, 1, samples]."""
        found = ClipFeatures(self.reference.codec, self.reference.classifier).add_batches(audio)
        return {"accuracy": found.accuracy(self.labels), "frechet": found.distance(self.reference)}

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
        ValueError: there is no such row.
    """
    rows = [row for row in TABLES[table] if not only or any(part in row.name for part in only)]
    if not rows:
        raise ValueError(f"--only {' '.join(only)}: no row of the table {table} has such a name; give part of one of: "
                         + "; ".join(row.name for row in TABLES[table]))
    folder.mkdir(parents=True, exist_ok=True)
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
