"""Notes that a transcriber hears in audio, and how many of them two transcriptions share.

The transcriber is basic-pitch (arXiv 2203.09893), whose model of 230 kB is inside its wheel and runs without TensorFlow:

    pip install onnxruntime mir_eval && pip install --no-deps basic-pitch
"""
from __future__ import annotations

import typing as tp
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..data.clips import resample

Note = tuple[float, float, int]     # onset and length in seconds, MIDI pitch

RATE, HOP, WINDOW = 22050, 256, 2 * 22050 - 256     # basic-pitch's sample rate, frame and input length in samples
OVERLAP = 30                                        # frames that neighbouring windows share
# Chosen on validation clips of the folk set: F1 of 0.85 against the score, where basic-pitch's own settings give 0.7.
SHORTEST, ONSET_THRESHOLD, FRAME_THRESHOLD = 0.05, 0.7, 0.5     # seconds, probabilities
TOLERANCE = 0.05                                    # seconds between onsets of the same note, as usual in the field
INSTALL = "run `pip install onnxruntime mir_eval` and `pip install --no-deps basic-pitch`"


class NoteTranscriber:
    """basic-pitch's model under onnxruntime, on one thread.

    Raises:
        ModuleNotFoundError: a package is missing.
    """

    def __init__(self) -> None:
        import importlib.util
        try:
            import onnxruntime
        except ImportError as error:
            raise ModuleNotFoundError(f"transcribing notes needs onnxruntime; {INSTALL}") from error
        found = importlib.util.find_spec("basic_pitch")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(f"transcribing notes needs basic-pitch; {INSTALL}")
        model = Path(next(iter(found.submodule_search_locations))) / "saved_models" / "icassp_2022" / "nmp.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def transcribe(self, wav: torch.Tensor, sample_rate: int) -> list[Note]:
        """Transcribe mono audio [samples]; the notes are sorted by onset."""
        audio = resample(wav.detach().float().cpu()[None], sample_rate, RATE)[0].numpy()
        step = WINDOW - OVERLAP * HOP
        padded = np.concatenate([np.zeros(OVERLAP * HOP // 2, np.float32), audio, np.zeros(WINDOW, np.float32)])
        windows = np.stack([padded[at:at + WINDOW] for at in range(0, len(audio), step)])[..., None]
        outputs = self.session.run(["StatefulPartitionedCall:1", "StatefulPartitionedCall:2"],
                                   {"serving_default_input_2:0": windows})
        frames = int(len(audio) / HOP)
        joined = [part[:, OVERLAP // 2:-OVERLAP // 2].reshape(-1, part.shape[-1])[:frames] for part in outputs]
        found = _note_events(*joined)
        return sorted((start * HOP / RATE, (end - start) * HOP / RATE, pitch) for start, end, pitch in found)


def _note_events(active: np.ndarray, onsets: np.ndarray) -> list[tuple[int, int, int]]:
    """Decode probabilities of notes and onsets [frames, 88] to (first frame, last frame, pitch) by basic-pitch's code."""
    import logging
    logging.disable(logging.WARNING)        # on import, it warns of every kind of model that it cannot run
    try:
        from basic_pitch.note_creation import output_to_notes_polyphonic
    finally:
        logging.disable(logging.NOTSET)
    events = output_to_notes_polyphonic(active, onsets, onset_thresh=ONSET_THRESHOLD, frame_thresh=FRAME_THRESHOLD,
                                        min_note_len=round(SHORTEST * RATE / HOP), infer_onsets=True, max_freq=None,
                                        min_freq=None)
    return [(int(start), int(end), int(pitch)) for start, end, pitch, _ in events]


def note_f1(reference: Sequence[Note], estimate: Sequence[Note], tolerance: float = TOLERANCE) -> float:
    """Compute the F1 score of notes: equal pitch, and onsets at most `tolerance` seconds apart. Lengths do not matter.

    Two empty lists agree: 1.

    Raises:
        ImportError: mir_eval is not installed.
    """
    if not reference or not estimate:
        return float(not reference and not estimate)
    try:
        from mir_eval.transcription import precision_recall_f1_overlap
    except ImportError as error:
        raise ModuleNotFoundError(f"comparing notes needs mir_eval; {INSTALL}") from error
    times, pitches = zip(*(_as_arrays(notes) for notes in (reference, estimate)), strict=True)
    f1 = precision_recall_f1_overlap(times[0], pitches[0], times[1], pitches[1], onset_tolerance=tolerance,
                                     pitch_tolerance=50.0, offset_ratio=None)[2]
    return float(f1)


def _as_arrays(notes: Sequence[Note]) -> tuple[np.ndarray, np.ndarray]:
    """Return mir_eval's form of notes: intervals in seconds [N, 2] and frequencies in Hz [N]."""
    intervals = np.array([(onset, onset + max(length, 1e-3)) for onset, length, _ in notes])
    return intervals, 440 * 2 ** ((np.array([pitch for *_, pitch in notes], float) - 69) / 12)


def mean_f1(references: tp.Iterable[Sequence[Note]], estimates: tp.Iterable[Sequence[Note]]) -> float:
    """Compute the mean of `note_f1` over clips."""
    return float(np.mean([note_f1(one, other) for one, other in zip(references, estimates, strict=True)]))
