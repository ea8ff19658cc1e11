"""Render a crop of a tune: draw instrument, key, tempo and start, synthesise the notes, and describe the result."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .captions import INSTRUMENTS, TEMPI, Instrument, caption, draw_template, key_name, register_of
from .soundfonts import DEFAULT, licence, synthesiser
from .tunes import Notes, Tune, share_in_scale

RMS_LEVEL = 10 ** (-20 / 20)    # target level: -20 dBFS
PEAK_LIMIT = 10 ** (-1 / 20)    # highest allowed peak: -1 dBFS
OVERSAMPLING = 2                # the synthesiser does not low-pass when it interpolates, so it runs at a higher rate
GATE = 0.95                     # share of its written length that a note sounds, which separates repeated notes
MAX_SILENCE = 0.5               # acceptable share of silence in a clip
MIN_CROP_IN_KEY = 0.9           # required `share_in_scale` of a crop
ATTEMPTS = 16                   # draws per tune


@dataclass(frozen=True)
class Performance:
    """How a tune is played.

    Attributes:
        tune: what is played.
        instrument: on which instrument.
        shift: transposition, in semitones.
        bpm: tempo, in counted beats per minute (see `Source.beat`).
        start: where the crop starts, in quarter notes.
        template: sentence of the caption.
    """

    tune: Tune
    instrument: Instrument
    shift: int
    bpm: int
    start: float
    template: str

    @property
    def key(self) -> str:
        """Name of the key after transposition."""
        return key_name(self.tune.source.tonic + self.shift, self.tune.source.mode)

    @property
    def second_per_quarter(self) -> float:
        """Length of a quarter note in seconds."""
        return 60.0 / self.bpm / self.tune.source.beat

    def sounding(self, duration: float) -> Notes:
        """List the notes of the crop as (onset, length, MIDI pitch), in seconds from its start.

        The tune repeats if the crop is longer than the rest of it. Notes that began before the crop are dropped.

        Args:
            duration: length of the crop in seconds.
        """
        cycle, scale = self.tune.length, self.second_per_quarter
        notes: Notes = []
        for turn in range(int((self.start + duration / scale) // cycle) + 1):
            for onset, length, pitch in self.tune.notes:
                at = (onset + turn * cycle - self.start) * scale
                if -1e-6 <= at < duration:
                    notes.append((round(max(at, 0.0), 4), round(length * scale * GATE, 4), pitch + self.shift))
        return notes


def draw(rng: np.random.Generator, tune: Tune) -> Performance | None:
    """Draw instrument, transposition, tempo and start; None if no instrument has the range and voices for the tune."""
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


def lowpass(factor: int, half: int = 32) -> np.ndarray:
    """Build a windowed-sinc low-pass filter for decimation by `factor`.

    Args:
        factor: ratio of the sample rates.
        half: zero crossings on each side.
    Returns:
        Kernel [2 * half * factor + 1].
    """
    t = np.arange(-half * factor, half * factor + 1) / factor
    kernel = np.sinc(t * 0.95) * np.blackman(len(t))
    return kernel / kernel.sum()


def synthesise(notes: Notes, program: int, sample_rate: int, duration: float, soundfont: str = DEFAULT) -> np.ndarray:
    """Synthesise notes at the SoundFont's own level.

    Args:
        notes: (onset, length, MIDI pitch), times in seconds.
        program: General MIDI program, counted from 0.
        sample_rate: in Hz.
        duration: in seconds.
        soundfont: see `soundfonts.find`.
    Returns:
        Mono audio [duration * sample_rate], float32.
    """
    rate = sample_rate * OVERSAMPLING
    synth = synthesiser(soundfont, program, rate)
    events = []
    for onset, length, pitch in notes:
        events.append((round(onset * rate), 1, pitch))
        events.append((round((onset + length) * rate), 0, pitch))   # 0 sorts first: notes end before others begin
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
    """Compute the share of 20 ms windows that are at least 50 dB below the loudest one; 1 if there is no sound at all."""
    size = sample_rate // 50
    windows = wav[:len(wav) // size * size].reshape(-1, size)
    level = np.sqrt((windows.astype(np.float64) ** 2).mean(1))
    return 1.0 if not level.max() > 0 else float((level < level.max() * 10 ** (-50 / 20)).mean())


def normalise(wav: np.ndarray) -> np.ndarray:
    """Scale audio to -20 dBFS RMS, or to a peak of -1 dBFS if that is quieter."""
    wav = wav.astype(np.float64)
    rms, peak = np.sqrt((wav ** 2).mean()), np.abs(wav).max()
    return (wav * min(RMS_LEVEL / rms, PEAK_LIMIT / peak)).astype(np.float32)


def is_in_key(performance: Performance, notes: Notes) -> bool:
    """Return whether the notes of a crop fit the key. A crop may not, even if the whole tune does."""
    source = performance.tune.source
    return share_in_scale(notes, source.tonic + performance.shift, source.mode) >= MIN_CROP_IN_KEY


def describe(performance: Performance, notes: Notes, soundfont: str | None) -> dict[str, Any]:
    """Build the metadata of a clip: the fields of AudioCraft's music and sound data sets, and its notes (in seconds).

    A SoundFont that was drawn is named with its licence.
    """
    drawn = {} if soundfont is None else {"soundfont": soundfont, "soundfont_licence": licence(soundfont)}
    source, instrument, tempo = performance.tune.source, performance.instrument, TEMPI[performance.bpm]
    register = register_of(sum(length * pitch for _, length, pitch in notes) / sum(length for _, length, _ in notes))
    text = caption(performance.template, source.kind, performance.key, instrument.name, performance.bpm, register)
    return {"description": text, "title": source.title, "artist": source.artist, "name": source.name,
            "key": performance.key, "bpm": performance.bpm, "genre": source.kind, "instrument": instrument.name,
            "moods": [tempo], "keywords": [source.kind, instrument.name, tempo] + ([register] if register else []),
            "program": instrument.program, "register": register, "beat": source.beat,
            "notes": [list(note) for note in notes], **drawn}


def render(rng: np.random.Generator, tune: Tune, sample_rate: int, duration: float, soundfonts: Sequence[str] = ()
           ) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Render a clip that is in its key and silent for at most half of its length.

    Args:
        rng: source of all random choices.
        tune: what to play.
        sample_rate: in Hz.
        duration: in seconds.
        soundfonts: one of them is drawn for the clip; the default one plays if there are none.
    Returns:
        Audio [duration * sample_rate], float32, and its metadata; None if `ATTEMPTS` draws give no suitable clip.
    """
    for _ in range(ATTEMPTS):
        performance = draw(rng, tune)
        notes = performance.sounding(duration) if performance else []
        if performance is None or not notes or not is_in_key(performance, notes):
            continue
        soundfont = soundfonts[int(rng.integers(len(soundfonts)))] if soundfonts else None
        wav = synthesise(notes, performance.instrument.program, sample_rate, duration, soundfont or DEFAULT)
        if silent_share(wav, sample_rate) <= MAX_SILENCE:
            return normalise(wav), describe(performance, notes, soundfont)
    return None
