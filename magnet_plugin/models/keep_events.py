"""Onsets and beats of a waveform, found by librosa."""
import typing as tp

import torch

HOP_SECONDS, WINDOW_SECONDS, BANDS = 0.01, 0.064, 64


def onset_times(wav: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Find where notes and strokes begin.

    Args:
        wav: [samples].
        sample_rate: in Hz.
    Returns:
        Times in seconds, [events].
    """
    import librosa
    envelope, hop = _onset_strength(wav, sample_rate)
    times = librosa.onset.onset_detect(onset_envelope=envelope, sr=sample_rate, hop_length=hop, units="time")
    return torch.from_numpy(times)


def beat_times(wav: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Find the beats; arguments and result are those of `onset_times`."""
    import librosa
    envelope, hop = _onset_strength(wav, sample_rate)
    _, times = librosa.beat.beat_track(onset_envelope=envelope, sr=sample_rate, hop_length=hop, units="time")
    return torch.from_numpy(times)


def _onset_strength(wav: torch.Tensor, sample_rate: int) -> tuple[tp.Any, int]:
    """Compute how much louder each moment is than the one before, and the samples between two moments.

    librosa's own hop and window, 512 and 2048 samples, are too coarse at 16 kHz for the width of a mask.
    """
    import librosa
    hop = max(1, round(HOP_SECONDS * sample_rate))
    envelope = librosa.onset.onset_strength(y=wav.numpy(), sr=sample_rate, hop_length=hop, n_mels=BANDS,
                                            n_fft=round(WINDOW_SECONDS * sample_rate))
    return envelope, hop
