"""The clips that are edited, the model that edits them, and how far apart two sounds are."""
from __future__ import annotations

import dataclasses
import typing as tp
from pathlib import Path

import torch

from ...data.clips import batches, read_clips
from ...metrics.codec import reconstruct
from ...metrics.harmony import chroma, chroma_distance
from ...metrics.instruments import InstrumentClassifier
from ..measure import Log

BATCH = 8
Values = dict[str, torch.Tensor]        # metric: [clips], or [seeds, clips]


class Sounds(tp.NamedTuple):
    """Audio [N, 1, samples] and its tokens [N, K, T]."""
    audio: torch.Tensor
    tokens: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Bench:
    """Held-out clips, and a model that edits them with several seeds.

    Attributes:
        model: a `MAGNeT`.
        classifier: of instruments; its features are the measure of timbre, independent of the codec.
        real: the clips.
        coded: the clips through the codec: the reference for distances, so that they do not measure the codec.
        captions, instruments, keys: of the clips.
        seeds: each edits all clips once.
        log: receives progress messages.
    """
    model: tp.Any
    classifier: InstrumentClassifier
    real: Sounds
    coded: Sounds
    captions: list[str]
    instruments: list[str]
    keys: list[str]
    seeds: list[int]
    log: Log

    @staticmethod
    def load(model: tp.Any, splits: tuple[Path, Path], clips: int, seeds: tp.Sequence[int], log: Log) -> Bench:
        """Train the classifier, and read and encode the clips.

        Args:
            splits: manifest folders of the training and of the held-out clips, of the folk set.
            clips: number of held-out clips.
        Raises:
            ValueError: there are fewer than 3 clips, or they do not have the length of the model's own clips.
        """
        found, rate = read_clips(splits[1], clips), model.sample_rate
        parts = [wav for _, wav in batches(found, rate, len(found))]
        length = round(model.max_duration * rate)
        if len(found) < 3 or len(parts) != 1 or parts[0].shape[-1] != length:
            raise ValueError(f"{splits[1]}: editing is measured on at least 3 clips of {model.max_duration:g} s, the length "
                             f"of the model's own clips; got {len(found)} of "
                             f"{sorted({wav.shape[-1] / rate for wav in parts})} s")
        codec, audio = model.compression_model, parts[0].split(BATCH)
        tokens = torch.cat([codec.encode(wav)[0] for wav in audio])
        coded = Sounds(torch.cat([reconstruct(codec, wav) for wav in audio]), tokens)
        captions, instruments, keys = ([clip.field(name) for clip in found] for name in ("description", "instrument", "key"))
        return Bench(model, InstrumentClassifier.train(splits[0]), Sounds(parts[0], tokens), coded, captions,
                     instruments, keys, list(seeds), log)

    @property
    def rate(self) -> int:
        """Sample rate in Hz."""
        return self.model.sample_rate

    def first(self, count: int) -> Bench:
        """Return the same with only the first clips."""
        real, coded = (Sounds(*(part[:count] for part in sounds)) for sounds in (self.real, self.coded))
        return dataclasses.replace(self, real=real, coded=coded, captions=self.captions[:count],
                                   instruments=self.instruments[:count], keys=self.keys[:count])

    def edit(self, method: str, **arguments: tp.Any) -> list[Sounds]:
        """Edit all clips, with their captions, once per seed."""
        def some(part: slice, seed: int) -> Sounds:
            made = getattr(self.model, method)(self.real.audio[part], self.rate, descriptions=self.captions[part], seed=seed,
                                               **arguments)
            return Sounds(made.audio, made.tokens)

        return self._each(some)

    def generate(self, with_text: bool) -> list[Sounds]:
        """Generate from all captions, or as many clips without a text, once per seed."""
        def some(part: slice, seed: int) -> Sounds:
            texts = self.captions[part]
            return Sounds(*(self.model.generate(texts, return_tokens=True, seed=seed) if with_text else
                            self.model.generate_unconditional(len(texts), return_tokens=True, seed=seed)))

        return self._each(some)

    def _each(self, make: tp.Callable[[slice, int], Sounds]) -> list[Sounds]:
        found = []
        for seed in self.seeds:
            parts = [make(slice(at, at + BATCH), 10000 * seed + at) for at in range(0, len(self.captions), BATCH)]
            found.append(Sounds(*(torch.cat(part) for part in zip(*parts, strict=True))))
            self.log(f"    seed {seed}")
        return found

    def silence(self) -> Sounds:
        """Return silence, as long as the clips."""
        audio = torch.zeros_like(self.real.audio)
        return Sounds(audio, self.model.compression_model.encode(audio[:1])[0].expand_as(self.real.tokens))

    def unrelated(self) -> list[Sounds]:
        """For each seed, pair every clip with another held-out one, through the codec."""
        return [Sounds(*(part.roll(-1 - number % (len(part) - 1), dims=0) for part in self.coded))
                for number in range(len(self.seeds))]

    def latent_distances(self, made: Sounds, frames: torch.Tensor) -> Values:
        """Compare the codec's latents with those of the real clips, over some frames: Bool [T] -> [N] each.

        `latents` is their mean distance, and `angle` their mean 1 - cosine after the mean of all real latents is subtracted,
        which does not depend on how loud a clip is.
        """
        codec = self.model.compression_model
        centre = codec.decode_latent(self.real.tokens).mean((0, 2), keepdim=True)
        one, other = (codec.decode_latent(tokens[..., frames]) - centre for tokens in (made.tokens, self.real.tokens))
        return {"latents": (one - other).norm(dim=1).mean(-1),
                "angle": 1 - torch.nn.functional.cosine_similarity(one, other, dim=1).mean(-1)}

    def audio_distances(self, one: torch.Tensor, other: torch.Tensor) -> Values:
        """Compute distances in timbre and in pitch classes over time: audio [N, 1, samples] each -> [N] each."""
        timbre = self.classifier.embed(one, self.rate) - self.classifier.embed(other, self.rate)
        return {"timbre": timbre.square().mean(-1).sqrt(),
                "chroma": chroma_distance(chroma(one, self.rate), chroma(other, self.rate))}


def over_seeds(made: tp.Iterable[Sounds], score: tp.Callable[[Sounds], Values]) -> Values:
    """Score the sounds of each seed: [seeds, clips] for each metric."""
    found = [score(sounds) for sounds in made]
    return {name: torch.stack([entry[name].double() for entry in found]) for name in found[0]}
