"""Transcribed notes and their F1 score; skipped where the optional packages are missing."""
import sys

import pytest
import torch

from magnet_plugin.metrics import notes
from magnet_plugin.metrics.notes import NoteTranscriber, mean_f1, note_f1

MELODY = [(0.5 * i, 0.45, pitch) for i, pitch in enumerate((60, 64, 67, 72, 69, 65))]


def test_f1_of_notes() -> None:
    pytest.importorskip("mir_eval")
    late = [(onset + 0.2, length, pitch) for onset, length, pitch in MELODY]
    wrong = [(onset, length, pitch + 1) for onset, length, pitch in MELODY[:3]] + MELODY[3:]
    short = [(onset, 0.1, pitch) for onset, _, pitch in MELODY]
    assert note_f1(MELODY, MELODY) == note_f1(MELODY, short) == 1
    assert note_f1(MELODY, late) == 0 and note_f1(MELODY, late, tolerance=0.25) == 1
    assert note_f1(MELODY, wrong) == pytest.approx(0.5)
    assert note_f1(MELODY, MELODY[:3]) == pytest.approx(2 / 3)          # precision 1, recall 1/2
    assert mean_f1([MELODY, MELODY], [MELODY, late]) == pytest.approx(0.5)


def test_silence_agrees_with_silence_only() -> None:
    assert note_f1([], []) == 1 and note_f1(MELODY, []) == note_f1([], MELODY) == 0


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="needs onnxruntime; run `pip install onnxruntime mir_eval` and `pip"):
        NoteTranscriber()


def test_the_transcriber_hears_the_notes_of_a_flute() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("basic_pitch")
    from magnet_plugin.data.folk.render import synthesise
    wav = torch.from_numpy(synthesise(MELODY, 73, 16000, 3.5))
    assert note_f1(MELODY, NoteTranscriber().transcribe(wav, 16000)) > 0.9
    assert notes.RATE == 22050
