"""One table on a trained MAGNeT: does it play the instrument that the text names, and does it sound like the data?"""
from __future__ import annotations

import random
import time
import typing as tp
from pathlib import Path

import torch

from ..data.clips import Clip, batches, read_clips
from .codec import reconstruct
from .frechet import LatentCodec, frechet_distance, gaussian, latents
from .instruments import InstrumentClassifier, agreement

BATCH, SHUFFLES = 8, 100


class Generator(tp.Protocol):
    """What is used of `magnet_plugin.MAGNeT`."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def compression_model(self) -> tp.Any:
        """The codec."""

    def generate(self, descriptions: tp.Sequence[str], *, seed: int) -> tp.Any:
        """Audio [B, C, T]."""


class Heard(tp.NamedTuple):
    """What is kept of a set of clips: audio itself would not fit for large sets."""

    instruments: list[str]
    latents: torch.Tensor       # [frames, D]


def judge(model: Generator, train_folder: tp.Union[str, Path], heldout_folder: tp.Union[str, Path], clips: int = 96,
          seed: int = 0, training_clips: tp.Optional[int] = None) -> dict[str, float]:
    """Judge a model by the first `clips` held-out captions.

    The classifier learns from real training clips alone. It hears the held-out clips themselves (real), what the codec
    makes of them (codec: about the best that a model of its tokens can do) and what the model generates from their
    captions (generated). Shuffled is the control: generated clips against one another's labels, a mean over many
    shuffles; a model that ignores its text scores no better.

    Fréchet distances are between codec latents of a set and of the real held-out clips: `train` is as many real
    training clips, the floor; `noise` is white noise, something that is no music.

    Args:
        train_folder: manifest folder of the split that the classifier learns from.
        heldout_folder: manifest folder of the split whose captions are used.
        clips: how many held-out clips, at most.
        seed: of generation, shuffling and noise.
        training_clips: how many clips the classifier learns from; None is all.
    Returns:
        Plain numbers: `clips`, `seed`, `instruments`, `instrument_accuracy_{real,codec,generated,shuffled}`,
        `frechet_{train,codec,generated,noise}`, `generated_audio_seconds`, `generation_seconds`, `seconds`.
    """
    start = time.perf_counter()
    heldout = read_clips(heldout_folder, clips)
    labels = [clip.field("instrument") for clip in heldout]
    captions = [clip.field("description") for clip in heldout]
    codec, rate = model.compression_model, model.sample_rate
    classifier = InstrumentClassifier.train(train_folder, training_clips)

    def hear(audio: tp.Iterable[torch.Tensor]) -> Heard:
        return listen(classifier, codec, rate, audio)

    train = hear(_audio(read_clips(train_folder, len(heldout)), rate))
    real = hear(_audio(heldout, rate))
    decoded = hear(reconstruct(codec, wav) for wav in _audio(heldout, rate))
    made = Timed(_generated(model, captions, seed))
    generated = hear(made)
    noise_source = torch.Generator().manual_seed(seed)
    noise = hear(0.1 * torch.randn(wav.shape, generator=noise_source) for wav in _audio(heldout, rate))
    reference = gaussian(real.latents)
    result: dict[str, float] = {"clips": len(heldout), "seed": seed, "instruments": len(classifier.instruments)}
    for name, heard in (("real", real), ("codec", decoded), ("generated", generated)):
        result[f"instrument_accuracy_{name}"] = agreement(heard.instruments, labels)
    result["instrument_accuracy_shuffled"] = shuffled_agreement(generated.instruments, labels, seed)
    for name, heard in (("train", train), ("codec", decoded), ("generated", generated), ("noise", noise)):
        result[f"frechet_{name}"] = frechet_distance(gaussian(heard.latents), reference)
    return {**result, "generated_audio_seconds": made.samples / rate, "generation_seconds": made.seconds,
            "seconds": time.perf_counter() - start}


def listen(classifier: InstrumentClassifier, codec: LatentCodec, sample_rate: int, audio: tp.Iterable[torch.Tensor]
           ) -> Heard:
    """Instruments and latents of batches [B, 1, T] at the codec's `sample_rate`."""
    instruments, points = [], []
    for wav in audio:
        instruments += classifier.predict(wav, sample_rate)
        points.append(latents(codec, wav))
    return Heard(instruments, torch.cat(points))


def shuffled_agreement(heard: tp.Sequence[str], labels: tp.Sequence[str], seed: int) -> float:
    """`agreement` with labels that were shuffled, a mean over 100 shuffles."""
    rng, order = random.Random(seed), list(labels)
    total = 0.0
    for _ in range(SHUFFLES):
        rng.shuffle(order)
        total += agreement(heard, order)
    return total / SHUFFLES


def _audio(clips: tp.Sequence[Clip], sample_rate: int) -> tp.Iterator[torch.Tensor]:
    return (wav for _, wav in batches(clips, sample_rate, BATCH))


def _generated(model: Generator, captions: tp.Sequence[str], seed: int) -> tp.Iterator[torch.Tensor]:
    for first in range(0, len(captions), BATCH):
        wav = model.generate(list(captions[first:first + BATCH]), seed=seed + first)
        yield wav.detach().float().cpu().mean(1, keepdim=True)


class Timed:
    """Batches of audio, with the time that making them took and how many samples they hold."""

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
