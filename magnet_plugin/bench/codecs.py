"""`magnet bench codec`: what survives a codec, and how well a language model learns its tokens."""
from __future__ import annotations

import json
import math
import subprocess
import time
import typing as tp
from pathlib import Path

import torch

from ..data.clips import batches, read_clips
from ..environment import dora_run
from ..metrics.codec import mel_distance, reconstruct, si_snr
from ..metrics.instruments import InstrumentClassifier, accuracy
from ..metrics.notes import NoteTranscriber, mean_f1
from ..models.loaders import load_codec
from . import records
from .measure import Log

BATCH = 8


class CodecJudge:
    """Held-out clips, the notes that are heard in them, and a classifier of instruments.

    Args:
        splits: manifest folders of the training and of the held-out clips, of the folk set.
        clips: number of held-out clips.
        training_clips: number of clips that the classifier is trained on.
    """

    def __init__(self, splits: tuple[Path, Path], clips: int, training_clips: int) -> None:
        self.classifier = InstrumentClassifier.train(splits[0], training_clips)
        self.transcriber = NoteTranscriber()
        self.heldout = read_clips(splits[1], clips)
        self.labels = [clip.field("instrument") for clip in self.heldout]
        self.written = [[tuple(note) for note in clip.metadata["notes"]] for clip in self.heldout]
        self.heard: list[list] = []

    def notes(self, audio: tp.Sequence[torch.Tensor], rate: int) -> list[list]:
        """Transcribe batches of audio [B, 1, samples]."""
        return [self.transcriber.transcribe(wav[0], rate) for batch in audio for wav in batch]

    def audio(self, rate: int) -> list[torch.Tensor]:
        """Load the held-out clips in batches [B, 1, samples]."""
        return [wav for _, wav in batches(self.heldout, rate, BATCH)]

    def real(self, rate: int) -> dict[str, float]:
        """Score the clips themselves: what the judges would say of a perfect codec."""
        audio = self.audio(rate)
        self.heard = self.notes(audio, rate)
        predicted = [name for batch in audio for name in self.classifier.predict(batch, rate)]
        return {"notes_written": mean_f1(self.written, self.heard), "instruments": accuracy(predicted, self.labels)}

    def scores(self, codec: tp.Any) -> dict[str, float]:
        """Score the clips after encoding and decoding."""
        rate, audio, clock = codec.sample_rate, self.audio(codec.sample_rate), time.perf_counter()
        decoded = [reconstruct(codec, wav) for wav in audio]
        seconds = time.perf_counter() - clock
        found = self.notes(decoded, rate)
        predicted = [name for batch in decoded for name in self.classifier.predict(batch, rate)]
        pairs = list(zip(audio, decoded, strict=True))
        return {"notes_recovered": mean_f1(self.heard, found), "notes_written": mean_f1(self.written, found),
                "instruments": accuracy(predicted, self.labels),
                "mel_db": float(torch.cat([mel_distance(*pair, rate) for pair in pairs]).mean()),
                "si_snr_db": float(torch.cat([si_snr(*pair) for pair in pairs]).mean()),
                "seconds": seconds / len(self.heldout)}


def describe(codec: tp.Any) -> dict[str, float]:
    """Return bit rate in kb/s and number of parameters."""
    bits = float(codec.frame_rate) * codec.num_codebooks * math.log2(codec.cardinality)
    return {"kbps": bits / 1000, "parameters": sum(value.numel() for value in codec.parameters())}


def cross_entropy(name: str, updates: int, overrides: tp.Sequence[str]) -> float:
    """Train `solver=magnet` on a codec's tokens with `dora run`, unless it was, and return its held-out cross entropy.

    Args:
        name: of the codec.
        updates: number of updates; all codecs get as many, of batches of the same shape.
        overrides: further Dora overrides.
    Returns:
        Cross entropy over the validation split, in nats per masked token.
    """
    from ..train import main as entry
    arguments = ["solver=magnet", f"compression_model_checkpoint={name}", "optim.epochs=1",
                 f"optim.updates_per_epoch={updates}", *overrides]
    subprocess.run(dora_run(arguments), check=True)
    history = json.loads((entry.get_xp(arguments).folder / "history.json").read_text())
    return float(history[-1]["valid"]["ce"])


def measure(codecs: dict[str, str], splits: tuple[Path, Path], clips: int, training_clips: int, updates: int,
            overrides: tp.Sequence[str], log: Log, folder: Path) -> Path:
    """Measure codecs and write `codec-cpu.json`, which is complete after every codec. Returns its path.

    Args:
        codecs: label to name, as `load_codec` takes it.
        splits: see `CodecJudge`.
        clips: see `CodecJudge`.
        training_clips: see `CodecJudge`.
        updates: see `cross_entropy`; 0 does not train a language model.
        overrides: see `cross_entropy`.
        log: receives progress messages.
        folder: for the record.
    """
    record, path = records.new_record("codec"), folder / "codec-cpu.json"
    judge = CodecJudge(splits, clips, training_clips)
    rows: dict[str, dict[str, float]] = {"real clips": judge.real(16000)}
    for label, name in codecs.items():
        log(f"  {label}")
        codec = load_codec(name)
        rows[label] = {**describe(codec), **judge.scores(codec)}
        if updates:
            rows[label]["cross_entropy"] = cross_entropy(name, updates, overrides)
        log("  " + ", ".join(f"{key} {value:.4g}" for key, value in rows[label].items()))
        case = {"clips": clips, "training_clips": training_clips, "updates": updates, "data": str(splits[1]), "rows": rows}
        records.write({**record, "cases": [case]}, path)
    return path
