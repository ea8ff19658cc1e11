"""Captions agree with the sound and with the score, as measured without the code that renders them.

Tables of keys and metres are repeated here on purpose.
"""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magnet_plugin.data.folk.captions import INSTRUMENTS, KINDS, TEMPI, TEMPLATES, caption, register_of, vocabulary
from magnet_plugin.data.folk.render import synthesise

RATE = 16000
Clips = list[tuple[dict[str, Any], np.ndarray]]
TONICS = {"C": 0, "D flat": 1, "D": 2, "E flat": 3, "E": 4, "F": 5, "F sharp": 6, "G": 7, "A flat": 8, "A": 9,
          "B flat": 10, "B": 11}
STEPS = {"major": "0 2 4 5 7 9 11", "minor": "0 2 3 5 7 8 10 11", "dorian": "0 2 3 5 7 9 10",
         "mixolydian": "0 2 4 5 7 9 10"}
KEY = re.compile(r"\bin ([A-G](?: flat| sharp)?) (major|minor|dorian|mixolydian)\b")
GENERAL_MIDI = {"violin": "Violin", "cello": "Cello", "flute": "Flute", "clarinet": "Clarinet", "trumpet": "Trumpet",
                "bagpipe": "Bagpipe", "organ": "Church Organ", "piano": "Acoustic Grand Piano",
                "harpsichord": "Harpsichord",
                "guitar": "Acoustic Guitar (nylon)", "banjo": "Banjo", "xylophone": "Xylophone"}


def spectrum(wav: np.ndarray) -> np.ndarray:
    """Mean log spectrum, independent of level."""
    frames = np.lib.stride_tricks.sliding_window_view(wav, 1024)[::512] * np.hanning(1024)
    power = (np.abs(np.fft.rfft(frames)) ** 2).mean(0)
    return np.log10(power / power.sum() + 1e-7)


def chroma(wav: np.ndarray) -> np.ndarray:
    """Share of the sound's energy in each pitch class, from 150 to 1500 Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(wav, 4096)[::1024] * np.hanning(4096)
    power = (np.abs(np.fft.rfft(frames)) ** 2).sum(0)
    frequency = np.fft.rfftfreq(4096, 1 / RATE)
    use = (frequency > 150) & (frequency < 1500)
    classes = np.round(69 + 12 * np.log2(frequency[use] / 440)).astype(int) % 12
    return np.bincount(classes, power[use], 12) / power[use].sum()


def test_the_sound_is_in_the_captions_key(clips: Clips) -> None:
    shares, others = [], []
    for facts, wav in clips:
        match = KEY.search(facts["description"])
        assert match and " ".join(match.groups()) == facts["key"]
        scale = [(TONICS[match[1]] + int(step)) % 12 for step in STEPS[match[2]].split()]
        inside = sum(length for _, length, pitch in facts["notes"] if pitch % 12 in scale)
        assert inside >= 0.9 * sum(length for _, length, _ in facts["notes"]), facts["name"]
        energy = chroma(wav)
        shares.append(energy[scale].sum())
        others += [energy[[(pitch + shift) % 12 for pitch in scale]].sum() for shift in (1, 6, 11)]
    assert np.mean(shares) > 0.9 and np.mean(others) < 0.65
    assert min(shares) > 0.5, "overtones are weaker than the notes"


def test_the_sound_is_of_the_captions_instrument(clips: Clips) -> None:
    import pretty_midi
    for facts, wav in clips[::4]:
        named = [i for i in INSTRUMENTS if i.name in facts["description"].split()]
        assert len(named) == 1 and named[0].name == facts["instrument"]
        assert pretty_midi.program_to_instrument_name(facts["program"]) == GENERAL_MIDI[named[0].name]
        notes = [(float(a), float(b), int(c)) for a, b, c in facts["notes"]]
        far = {i.name: np.abs(spectrum(synthesise(notes, i.program, RATE, len(wav) / RATE)) - spectrum(wav)).mean()
               for i in INSTRUMENTS}
        assert min(far, key=lambda name: far[name]) == named[0].name, far


def test_instruments_are_in_tune() -> None:
    """Partials of single notes are within a quarter of a semitone of their pitch."""
    for instrument in INSTRUMENTS:
        for pitch in range(instrument.low, instrument.high + 1, 6):
            wav = synthesise([(0.0, 1.0, pitch)], instrument.program, RATE, 1.0)[RATE // 10:]
            power = np.abs(np.fft.rfft(wav * np.hanning(len(wav)), 1 << 17))
            tries = np.arange(-1.5, 1.5, 0.05)
            heights = [sum(power[round(h * 440 * 2 ** ((pitch + d - 69) / 12) * (1 << 17) / RATE)] ** 0.5
                           for h in (1, 2, 3, 4) if h * 440 * 2 ** ((pitch - 69) / 12) < 7000) for d in tries]
            assert abs(tries[int(np.argmax(heights))]) < 0.25, (instrument.name, pitch)


def test_tempo_kind_and_notes_agree_with_the_score(clips: Clips) -> None:
    """The notes of a clip are in music21's reading of the score, at the caption's tempo."""
    from music21 import converter, corpus
    seen = 0
    for facts, _ in clips:
        if facts["genre"] == "chorale" or seen == 12:
            continue
        book, stem, number = facts["name"].split("/")
        path = Path(corpus.getWork(f"{book}/{stem}"))
        text = next(t for t in re.split(r"(?m)^(?=X:)", path.read_text()) if re.match(rf"X: *{number}\s", t))
        meter = re.findall(r"(?m)^M: *(\S+)", text)[0]
        assert facts["genre"].split()[-1] in re.findall(r"(?m)^R: *(.*)", text)[0].lower()
        assert facts["genre"] in facts["description"]
        score: Any = converter.parse(text, format="abc")
        written = sorted((float(n.getOffsetInHierarchy(score)), max(p.midi for p in n.pitches))
                         for n in score.stripTies().recurse().notes if n.quarterLength > 0)
        played = [(onset, pitch) for onset, _, pitch in facts["notes"]]
        played = [n for i, n in enumerate(played) if i + 1 == len(played) or played[i + 1][0] > n[0]][:12]
        beat = {"2/4": 1.0, "3/4": 1.0, "6/8": 1.5, "9/8": 1.5, "12/8": 1.5}.get(
            meter, 1.0 if facts["genre"] in ("strathspey", "fling", "air") else 2.0)
        quarter = 60 / facts["bpm"] / beat
        assert found(written, played, quarter), facts["name"]
        assert not found(written, played, quarter * 1.11)
        seen += 1
    assert seen == 12


def found(written: list[tuple[float, int]], played: list[tuple[float, int]], quarter: float) -> bool:
    """Return whether the score contains these notes in any transposition (the tune may start over)."""
    turned = written + [(at + max(written)[0] + 1e3, pitch) for at, pitch in written]
    for start in range(len(written)):
        run = turned[start:start + len(played)]
        shifts = {a[1] - b[1] for a, b in zip(run, played, strict=False)}
        pairs = zip(run, played, strict=False)
        on_time = all(abs((a[0] - run[0][0]) * quarter - b[0] + played[0][0]) < 0.002 for a, b in pairs if a[0] < 1e3)
        if len(shifts) == 1 and on_time:
            return True
    return False


def test_tempo_words_match_the_beats_a_minute(clips: Clips) -> None:
    for facts, _ in clips:
        text, word = facts["description"], "slow" if facts["bpm"] <= 80 else "fast" if facts["bpm"] >= 120 else "medium"
        assert set(text.split()) & {"slow", "medium", "fast"} <= {word}
        assert word in text.split() or f"at {facts['bpm']} bpm" in text
        assert re.findall(r"(\d+) bpm", text) in ([], [str(facts["bpm"])])
        assert facts["moods"] == [word]


def test_register_words_match_the_notes(clips: Clips) -> None:
    assert (register_of(50), register_of(65), register_of(85)) == ("low", None, "high")
    words = set()
    for facts, _ in clips:
        total = sum(length for _, length, _ in facts["notes"])
        mean = sum(length * pitch for _, length, pitch in facts["notes"]) / total
        word = "low" if mean < 57 else "high" if mean > 77 else None
        assert re.findall(r"in a (\w+) register", facts["description"]) == ([word] if word else []), facts["name"]
        words.add(word)
    assert words == {"low", "high", None}


def test_captions_only_use_the_vocabulary(clips: Clips) -> None:
    words = vocabulary()
    assert words == sorted(set(words)) and all(re.fullmatch(r"[a-z]+|\d+", word) for word in words)
    used = {word for facts, _ in clips for word in facts["description"].lower().split()}
    assert used <= set(words)
    possible = {word for template in TEMPLATES for kind in KINDS for bpm in TEMPI for register in (None, "low", "high")
                for word in caption(template, kind, "B flat mixolydian", "piano", bpm, register).lower().split()}
    assert possible <= set(words)
    assert {"an", "jig", "slip"} <= possible


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_names_kind_key_instrument_and_tempo(template: str) -> None:
    text = caption(template, "slip jig", "F sharp minor", "cello", 130, None)
    assert all(part in text for part in ("slip jig", "in F sharp minor", "cello"))
    assert "fast" in text or "at 130 bpm" in text
    assert "  " not in text and text == text.strip()
