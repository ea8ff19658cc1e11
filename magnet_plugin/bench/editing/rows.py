"""The rows of the tables: each unit edits or generates, and scores the results next to those of its controls."""
from __future__ import annotations

import typing as tp

import torch

from ...decoding.options import CHOICES
from ...decoding.windows import ORDERS
from ...metrics.bootstrap import mean_interval
from ...metrics.continuity import click, spectral_flux, spectral_step
from ...metrics.harmony import chroma, chroma_distance, estimate_key, in_key
from .clips import Bench, Sounds, Values, over_seeds

Row = dict[str, list[float]]            # metric: [mean, low, high]
Rows = dict[str, Row]
PERIOD = 7                              # VampNet's preset `medium` keeps every 7th frame
FADE = 0.02                             # seconds at both ends of the second that its distances leave out
LONG = 30.0                             # seconds
STRIDES = (0.4, 0.6, 0.8)               # of a window
INPAINTED, PERIODIC = "inpainted ({})", "every 7th frame kept ({})"
BOUNDS = ("the real second", "the real second through the codec")
UNRELATED = "unrelated clip"
CAPTION, NEITHER, SILENCE = "caption without context", "neither caption nor context", "silence"


def middle(bench: Bench) -> tuple[float, float]:
    """Return the second that is edited."""
    centre = bench.real.audio.shape[-1] / bench.rate / 2
    return centre - 0.5, centre + 0.5


def fewer(clips: int) -> int:
    """Return how many of the clips variations and long clips use: a third of them."""
    return max(clips // 3, 2)


def cut(audio: torch.Tensor, rate: int, start: float, stop: float) -> torch.Tensor:
    """Cut audio [N, C, samples] at two times in seconds."""
    return audio[..., round(start * rate):round(stop * rate)]


def distances(bench: Bench, made: Sounds, free: torch.Tensor) -> Values:
    """Compare the edited second with the real one through the codec. `free` is Bool [T]: the frames that were generated."""
    start, stop = middle(bench)
    frames, rate = torch.zeros_like(free), bench.model.frame_rate
    frames[round(start * rate):round(stop * rate)] = True
    pair = (cut(sounds.audio, bench.rate, start + FADE, stop - FADE) for sounds in (made, bench.coded))
    return {**bench.latent_distances(made, frames & free), **bench.audio_distances(*pair)}


def seams(bench: Bench, made: Sounds) -> Values:
    """Compute the spectral flux and clicks where the edited second begins and ends."""
    return {name: torch.stack([measure(made.audio, bench.rate, at) for at in middle(bench)]).mean(0)
            for name, measure in (("flux", spectral_flux), ("click", click))}


def summarise(values: Values) -> Row:
    """Return mean and bootstrap interval of each metric."""
    return {name: mean_interval(value) for name, value in values.items()}


def difference(one: Values, other: Values) -> Row:
    """Return the mean difference `one - other` over the same clips and seeds, for the metrics that both have."""
    return summarise({name: one[name] - other[name] for name in one if name in other})


def second(bench: Bench) -> Rows:
    """Edit the middle second, and put other sounds into its place."""
    bench.model.set_generation_params()
    found: dict[str, Values] = {**bounds(bench), **controls(bench)}
    edited = {}
    for choice in CHOICES["upper_codebooks"]:
        bench.model.set_generation_params(upper_codebooks=choice)
        edited[INPAINTED.format(choice)] = inpaint(bench)
        edited[PERIODIC.format(choice)] = periodic(bench)
    shown, hidden = ([name.format(choice) for name in (INPAINTED, PERIODIC)] for choice in CHOICES["upper_codebooks"])
    pairs = [*zip(hidden, shown, strict=True), *((shown[0], name) for name in (*found, shown[1])), (UNRELATED, BOUNDS[0])]
    return rows_and_differences(found | edited, pairs)


def second_by_preset(bench: Bench) -> Rows:
    """Do the same with the preset for editing, by which the controls are generated too."""
    bench.model.set_preset("edit")
    found = controls(bench)
    return rows_and_differences({**found, "inpainted": inpaint(bench)}, [("inpainted", name) for name in found])


def rows_and_differences(found: dict[str, Values], pairs: tp.Iterable[tuple[str, str]]) -> Rows:
    """Return a row for everything that was found, and for the difference of each pair."""
    return {**{name: summarise(values) for name, values in found.items()},
            **{f"{one} − {other}": difference(found[one], found[other]) for one, other in pairs}}


def bounds(bench: Bench) -> dict[str, Values]:
    """Put the real second into its own place: what an edit cannot reach."""
    return _pasted(bench, {BOUNDS[0]: [bench.real] * len(bench.seeds), BOUNDS[1]: [bench.coded] * len(bench.seeds)})


def controls(bench: Bench) -> dict[str, Values]:
    """Put other sounds into the second: what an edit has to be better than. Silence has latents only."""
    frames = torch.zeros(bench.real.tokens.shape[-1], dtype=torch.bool)
    start, stop = (round(at * bench.model.frame_rate) for at in middle(bench))
    frames[start:stop] = True
    silence = over_seeds([bench.silence()] * len(bench.seeds), lambda made: bench.latent_distances(made, frames))
    return {SILENCE: silence, **_pasted(bench, {
        CAPTION: bench.generate(with_text=True), NEITHER: bench.generate(with_text=False), UNRELATED: bench.unrelated()})}


def _pasted(bench: Bench, sounds: dict[str, list[Sounds]]) -> dict[str, Values]:
    """Score what is put into the second by hard cuts."""
    start, stop = (round(at * bench.rate) for at in middle(bench))

    def score(made: Sounds) -> Values:
        audio = bench.real.audio.clone()
        audio[..., start:stop] = made.audio[..., start:stop]
        pasted = Sounds(audio, made.tokens)
        return {**distances(bench, pasted, torch.ones(made.tokens.shape[-1], dtype=torch.bool)), **seams(bench, pasted)}

    return {name: over_seeds(made, score) for name, made in sounds.items()}


def inpaint(bench: Bench) -> Values:
    """Inpaint the second."""
    start, stop = (round(at * bench.model.frame_rate) for at in middle(bench))
    free = torch.zeros(bench.real.tokens.shape[-1], dtype=torch.bool)
    free[start:stop] = True
    return over_seeds(bench.edit("inpaint", spans=[middle(bench)]),
                      lambda made: {**distances(bench, made, free), **seams(bench, made)})


def periodic(bench: Bench) -> Values:
    """Generate as many tokens in a wider region, of which every 7th frame is kept, as VampNet does."""
    free = periodic_frames(bench.real.tokens.shape[-1], round(float(bench.model.frame_rate)))
    return over_seeds(bench.edit("vary", keep=~free), lambda made: distances(bench, made, free))


def periodic_frames(length: int, count: int) -> torch.Tensor:
    """Free `count` frames around the middle of a clip, but keep every 7th: Bool [T]."""
    frame = torch.arange(length)
    candidates = frame[frame % PERIOD > 0]
    free = torch.zeros(length, dtype=torch.bool)
    free[candidates[(2 * candidates + 1 - length).abs().argsort(stable=True)[:count]]] = True
    return free


def vary(bench: Bench) -> Rows:
    """Vary clips by strengths from 0.1 to 1, and compare them with their source."""
    bench = bench.first(fewer(len(bench.captions)))

    def score(made: Sounds) -> Values:
        whole = torch.ones(made.tokens.shape[-1], dtype=torch.bool)
        return {"latents": bench.latent_distances(made, whole)["latents"],
                **bench.audio_distances(made.audio, bench.coded.audio),
                "same_tokens": (made.tokens == bench.coded.tokens).double().mean((1, 2))}

    bench.model.set_generation_params()
    rows = {"the source": summarise(over_seeds([bench.real], score))}
    for tenth in range(1, 11):
        rows[f"strength {tenth / 10:g}"] = summarise(over_seeds(bench.edit("vary", strength=tenth / 10), score))
    return {**rows, UNRELATED: summarise(over_seeds(bench.unrelated(), score))}


def loop(bench: Bench) -> Rows:
    """Repeat clips: as they are, and made seamless."""
    length = bench.real.audio.shape[-1] / bench.rate

    def wrap(made: Sounds, at: float = length) -> Values:
        twice = made.audio.repeat(1, 1, 2)
        return {name: measure(twice, bench.rate, at)
                for name, measure in (("flux", spectral_flux), ("click", click), ("step", spectral_step))}

    def edges(made: Sounds) -> Values:
        """Where the generated audio begins and ends."""
        found = [wrap(made, at) for at in (length - 1.0, 1.0)]
        return {name: torch.stack([entry[name] for entry in found]).mean(0) for name in found[0]}

    bench.model.set_generation_params()
    made = bench.edit("loop", seam=2.0)
    real = [bench.real]
    return {"real clips, in their middle": summarise(over_seeds(real, lambda sounds: wrap(sounds, length / 2))),
            "real clips repeated, at the wrap": summarise(over_seeds(real, wrap)),
            "loop, at the wrap": summarise(over_seeds(made, wrap)),
            "real clips, 1 s from both ends": summarise(over_seeds(real, edges)),
            "loop, 1 s from both ends, where generated audio begins and ends": summarise(over_seeds(made, edges))}


def long_clips(order: str, stride: float, with_text: bool = True) -> tp.Callable[[Bench], Rows]:
    """Return a unit that generates clips of 30 s, and compares their last window with their first."""
    name = f"{order}, stride {stride:g}{'' if with_text else ', without a text'}"

    def unit(bench: Bench) -> Rows:
        bench = bench.first(fewer(len(bench.captions)))
        window = bench.model.max_duration
        bench.model.set_generation_params(duration=LONG, extend_stride=stride * window, window_order=order)
        made = bench.generate(with_text)
        first, last = ([Sounds(cut(sounds.audio, bench.rate, at, at + window), sounds.tokens) for sounds in made]
                       for at in (0.0, LONG - window))
        return {name: drift(bench, first, last)}
    return unit


def independent(bench: Bench) -> Rows:
    """Compare clips of the same caption, but with different seeds; and describe the real clips."""
    bench = bench.first(fewer(len(bench.captions)))
    bench.model.set_generation_params()
    made = bench.generate(with_text=True)
    return {"two clips of the caption, independent": drift(bench, made, [*made[1:], made[0]]),
            "the real clip, twice": drift(bench, [bench.real], [bench.real])}


def drift(bench: Bench, first: list[Sounds], last: list[Sounds]) -> Row:
    """Compare two windows: instrument and timbre, key and pitch classes, and how far both are as captioned."""
    def score(pair: tuple[Sounds, Sounds]) -> Values:
        audio = [sounds.audio.float().mean(1, keepdim=True) for sounds in pair]
        energy = [chroma(wav, bench.rate).sum(-1) for wav in audio]                             # [N, 12]
        names, keys = [bench.classifier.predict(wav, bench.rate) for wav in audio], [estimate_key(own) for own in energy]
        found = {"same_instrument": _equal(*names), "timbre": bench.audio_distances(*audio)["timbre"],
                 "same_key": _equal(*keys), "pitches": chroma_distance(energy[0][..., None], energy[1][..., None])}
        for which, own, heard in zip(("first", "last"), energy, names, strict=True):
            shares = [in_key(row, key) for row, key in zip(own, bench.keys, strict=True)]
            found |= {f"instrument_{which}": _equal(heard, bench.instruments), f"in_key_{which}": torch.stack(shares)}
        return found

    pairs = [score(pair) for pair in zip(first, last, strict=True)]
    return summarise({name: torch.stack([entry[name].double() for entry in pairs]) for name in pairs[0]})


def _equal(one: tp.Sequence[str], other: tp.Sequence[str]) -> torch.Tensor:
    return torch.tensor([float(a == b) for a, b in zip(one, other, strict=True)])


#: Units of a measurement, in the order of the tables. `alternate` needs windows that overlap by less than half.
UNITS: dict[str, tp.Callable[[Bench], Rows]] = {
    "second": second, "second by preset": second_by_preset, "vary": vary, "loop": loop, "independent": independent,
    **{f"long {order} {stride:g}": long_clips(order, stride) for order in ("forward", "alternate") for stride in STRIDES
       if order == "forward" or stride > 0.5},
    **{f"long {order} without text": long_clips(order, 0.6, with_text=False) for order in ORDERS}}
