"""Report on a trained MAGNeT: does it play the instrument that the caption names, and does it sound like the data?"""
from __future__ import annotations

import random
import time
import typing as tp
from pathlib import Path

import torch

from ..data.clips import Clip, batches, read_clips
from .codec import reconstruct
from .features import ClipFeatures
from .instruments import InstrumentClassifier, accuracy

BATCH, SHUFFLES = 8, 100


class Generator(tp.Protocol):
    """The part of `magnet_plugin.MAGNeT` that the report uses."""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""

    @property
    def compression_model(self) -> tp.Any:
        """The codec."""

    def generate(self, descriptions: tp.Sequence[str], *, seed: int) -> tp.Any:
        """Generate audio [B, C, T]."""


def evaluate_model(model: Generator, train_folder: tp.Union[str, Path], heldout_folder: tp.Union[str, Path], clips: int = 96,
                   seed: int = 0, training_clips: tp.Optional[int] = None) -> dict[str, float]:
    """Evaluate a model on the first held-out captions.

    The instrument classifier is trained on real training clips and applied to the held-out clips themselves (`real`), to
    the same clips after encoding and decoding (`codec`, about the best that any model on these tokens can reach), and to
    clips generated from their captions (`generated`). `shuffled` compares the generated clips with one another's labels:
    a model that ignores its text scores no better than that.

    Fréchet distances are between the codec latents of a set and of the real held-out clips. `train` uses as many real
    training clips and is a lower bound; `noise` uses white noise and is an upper one.

    Args:
        train_folder: manifest folder of the split that the classifier is trained on.
        heldout_folder: manifest folder of the split whose captions are used.
        clips: maximum number of held-out clips.
        seed: seed of generation, shuffling and noise.
        training_clips: maximum number of clips that the classifier is trained on; None uses all.
    Returns:
        `clips`, `seed`, `instruments`, `instrument_accuracy_{real,codec,generated,shuffled}`,
        `frechet_{train,codec,generated,noise}`, `generated_audio_seconds`, `generation_seconds`, `seconds`.
    """
    start = time.perf_counter()
    heldout = read_clips(heldout_folder, clips)
    labels = [clip.field("instrument") for clip in heldout]
    captions = [clip.field("description") for clip in heldout]
    codec, rate = model.compression_model, model.sample_rate
    classifier = InstrumentClassifier.train(train_folder, training_clips)
    generation = TimedBatches(_generate(model, captions, seed))
    noise_source = torch.Generator().manual_seed(seed)
    audio: dict[str, tp.Iterable[torch.Tensor]] = {
        "train": _audio(read_clips(train_folder, len(heldout)), rate),
        "real": _audio(heldout, rate),
        "codec": (reconstruct(codec, wav) for wav in _audio(heldout, rate)),
        "generated": generation,
        "noise": (0.1 * torch.randn(wav.shape, generator=noise_source) for wav in _audio(heldout, rate)),
    }
    features = {name: ClipFeatures(codec, classifier).add_batches(batches) for name, batches in audio.items()}
    result: dict[str, float] = {"clips": len(heldout), "seed": seed, "instruments": len(classifier.instruments)}
    for name in ("real", "codec", "generated"):
        result[f"instrument_accuracy_{name}"] = features[name].accuracy(labels)
    result["instrument_accuracy_shuffled"] = shuffled_accuracy(features["generated"].instruments, labels, seed)
    for name in ("train", "codec", "generated", "noise"):
        result[f"frechet_{name}"] = features[name].distance(features["real"])
    return {**result, "generated_audio_seconds": generation.samples / rate, "generation_seconds": generation.seconds,
            "seconds": time.perf_counter() - start}


def shuffled_accuracy(predicted: tp.Sequence[str], labels: tp.Sequence[str], seed: int) -> float:
    """Compute the accuracy against randomly permuted labels, averaged over 100 permutations."""
    rng, order = random.Random(seed), list(labels)
    total = 0.0
    for _ in range(SHUFFLES):
        rng.shuffle(order)
        total += accuracy(predicted, order)
    return total / SHUFFLES


def _audio(clips: tp.Sequence[Clip], sample_rate: int) -> tp.Iterator[torch.Tensor]:
    return (wav for _, wav in batches(clips, sample_rate, BATCH))


def _generate(model: Generator, captions: tp.Sequence[str], seed: int) -> tp.Iterator[torch.Tensor]:
    for first in range(0, len(captions), BATCH):
        wav = model.generate(list(captions[first:first + BATCH]), seed=seed + first)
        yield wav.detach().float().cpu().mean(1, keepdim=True)


class TimedBatches:
    """Iterates over batches of audio; counts their samples and the seconds that producing them took."""

    def __init__(self, audio: tp.Iterator[torch.Tensor]) -> None:
        self.audio = audio
        self.seconds, self.samples = 0.0, 0

    def __iter__(self) -> tp.Iterator[torch.Tensor]:
        while True:
            start = time.perf_counter()
            wav = next(self.audio, None)
            self.seconds += time.perf_counter() - start
            if wav is None:
                return
            self.samples += wav.shape[0] * wav.shape[-1]
            yield wav
