"""A tune on a sampled instrument: draws how it is played, renders it, and says what is true of it."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .captions import INSTRUMENTS, MODES, TEMPI, Instrument, caption, draw_template, key_name, register_of
from .sources import package_folder
from .tunes import Notes, Tune

RMS_LEVEL = 10 ** (-20 / 20)    # -20 dBFS, and
PEAK_LIMIT = 10 ** (-1 / 20)    # never over -1 dBFS
OVERSAMPLING = 2                # the synthesiser interpolates without a low-pass, so it runs faster than asked
GATE = 0.95                     # part of a written length that a note sounds, so that repeated notes part
MAX_SILENCE = 0.5               # share of a clip
ATTEMPTS = 16


@dataclass(frozen=True)
class Performance:
    """How a tune is played. `shift` in semitones; `start` in quarter notes; `bpm` counts the tune's felt beats."""

    tune: Tune
    instrument: Instrument
    shift: int
    bpm: int
    start: float
    template: str

    @property
    def key(self) -> str:
        """Name of the key that sounds."""
        return key_name(self.tune.source.tonic + self.shift, self.tune.source.mode)

    @property
    def second_per_quarter(self) -> float:
        """Seconds that a quarter note lasts."""
        return 60.0 / self.bpm / self.tune.source.beat

    def sounding(self, duration: float) -> Notes:
        """Notes as (onset, length, MIDI pitch) in seconds from the clip's start; the tune repeats if it has to."""
        cycle, scale = self.tune.length, self.second_per_quarter
        notes: Notes = []
        for turn in range(int((self.start + duration / scale) // cycle) + 1):
            for onset, length, pitch in self.tune.notes:
                at = (onset + turn * cycle - self.start) * scale
                if -1e-6 <= at < duration:
                    notes.append((round(max(at, 0.0), 4), round(length * scale * GATE, 4), pitch + self.shift))
        return notes


def draw(rng: np.random.Generator, tune: Tune) -> Performance | None:
    """Draws instrument, transposition, tempo and start; None when no instrument has the tune's span and voices."""
    lowest, highest = min(note[2] for note in tune.notes), max(note[2] for note in tune.notes)
    fitting = [i for i in INSTRUMENTS if i.high - i.low >= highest - lowest and i.voices >= tune.voices]
    if not fitting:
        return None
    instrument = fitting[int(rng.integers(len(fitting)))]
    shift = int(rng.integers(instrument.low - lowest, instrument.high - highest + 1))
    bpm = list(TEMPI)[int(rng.integers(len(TEMPI)))]
    onsets = {onset for onset, _, _ in tune.notes}
    starts = [bar for bar in tune.bars if bar in onsets] or sorted(onsets)
    start = starts[int(rng.integers(len(starts)))]
    return Performance(tune, instrument, shift, bpm, start, draw_template(rng))


@lru_cache(maxsize=1)
def soundfont() -> bytes:
    """The General MIDI SoundFont that pretty_midi brings along.

    Raises:
        ValueError: pretty_midi is not installed or came without it.
    """
    path = package_folder("pretty_midi") / "TimGM6mb.sf2"
    if not path.exists():
        raise ValueError(f"No SoundFont at {path}: run `pip install --force-reinstall pretty_midi`.")
    return path.read_bytes()


def lowpass(factor: int, half: int = 32) -> np.ndarray:
    """Windowed-sinc filter `[2 * half * factor + 1]` that keeps what a rate `factor` times lower can hold."""
    t = np.arange(-half * factor, half * factor + 1) / factor
    kernel = np.sinc(t * 0.95) * np.blackman(len(t))
    return kernel / kernel.sum()


def synthesise(notes: Notes, program: int, sample_rate: int, duration: float) -> np.ndarray:
    """Mono audio `[duration * sample_rate]`, float32, at the SoundFont's own level.

    Args:
        notes: (onset, length, MIDI pitch), times in seconds.
        program: General MIDI program, counted from 0.
    """
    import tinysoundfont  # type: ignore[import-untyped]
    rate = sample_rate * OVERSAMPLING
    # A synthesiser of its own for each clip: what rang in an earlier one must not reach into this one.
    synth = tinysoundfont.Synth(samplerate=rate)
    synth.program_select(0, synth.sfload(soundfont()), 0, program)
    events = []
    for onset, length, pitch in notes:
        events.append((round(onset * rate), 1, pitch))
        events.append((round((onset + length) * rate), 0, pitch))   # at one time, notes end before notes begin
    total, at, pieces = round(duration * sample_rate) * OVERSAMPLING, 0, []
    for when, on, pitch in sorted(events):
        if when >= total:
            break
        if when > at:
            pieces.append(np.frombuffer(synth.generate(when - at), np.float32).reshape(-1, 2).mean(1))
            at = when
        if on:
            synth.noteon(0, pitch, 100)
        else:
            synth.noteoff(0, pitch)
    pieces.append(np.frombuffer(synth.generate(total - at), np.float32).reshape(-1, 2).mean(1))
    wav = np.convolve(np.concatenate(pieces), lowpass(OVERSAMPLING), mode="same")
    return wav[::OVERSAMPLING].astype(np.float32)


def silent_share(wav: np.ndarray, sample_rate: int) -> float:
    """Share of 20 ms windows that lie 50 dB or more under the loudest one; 1 for no sound at all."""
    size = sample_rate // 50
    windows = wav[:len(wav) // size * size].reshape(-1, size)
    level = np.sqrt((windows.astype(np.float64) ** 2).mean(1))
    return 1.0 if not level.max() > 0 else float((level < level.max() * 10 ** (-50 / 20)).mean())


def normalise(wav: np.ndarray) -> np.ndarray:
    """Brings audio to -20 dBFS RMS, or to a peak of -1 dBFS where that is less."""
    wav = wav.astype(np.float64)
    rms, peak = np.sqrt((wav ** 2).mean()), np.abs(wav).max()
    return (wav * min(RMS_LEVEL / rms, PEAK_LIMIT / peak)).astype(np.float32)


def true_of(performance: Performance, notes: Notes) -> bool:
    """Whether the notes of this very crop fit the key (of a tune that fits as a whole a crop may not)."""
    tune = performance.tune.source
    scale = {(tune.tonic + performance.shift + step) % 12 for step in MODES[tune.mode]}
    total = sum(length for _, length, _ in notes)
    return sum(length for _, length, pitch in notes if pitch % 12 in scale) >= 0.9 * total


def describe(performance: Performance, notes: Notes) -> dict[str, Any]:
    """What AudioCraft's music and sound data sets read of a clip, and the notes it was made of (in seconds)."""
    source, instrument, tempo = performance.tune.source, performance.instrument, TEMPI[performance.bpm]
    register = register_of(sum(length * pitch for _, length, pitch in notes) / sum(length for _, length, _ in notes))
    text = caption(performance.template, source.kind, performance.key, instrument.name, performance.bpm, register)
    return {"description": text, "title": source.title, "artist": source.artist, "name": source.name,
            "key": performance.key, "bpm": performance.bpm, "genre": source.kind, "instrument": instrument.name,
            "moods": [tempo], "keywords": [source.kind, instrument.name, tempo] + ([register] if register else []),
            "program": instrument.program, "register": register, "beat": source.beat,
            "notes": [list(note) for note in notes]}


def render(rng: np.random.Generator, tune: Tune, sample_rate: int, duration: float
           ) -> tuple[np.ndarray, dict[str, Any]] | None:
    """One clip of a tune, `[duration * sample_rate]` float32, and its facts; None when no draw gives a fit one.

    A fit one is true to its key and has sound in at least half of its length.
    """
    for _ in range(ATTEMPTS):
        performance = draw(rng, tune)
        notes = performance.sounding(duration) if performance else []
        if performance is None or not notes or not true_of(performance, notes):
            continue
        wav = synthesise(notes, performance.instrument.program, sample_rate, duration)
        if silent_share(wav, sample_rate) <= MAX_SILENCE:
            return normalise(wav), describe(performance, notes)
    return None
