"""Audio as callers give it: checked, and converted to float32 [B, C, samples]."""
import typing as tp

import numpy as np
import torch

_INTEGERS = {torch.int16: 2 ** 15, torch.int32: 2 ** 31}


def read_waveform(audio: tp.Any, sample_rate: int, channels: int, name: str) -> torch.Tensor:
    """Check audio that a caller gave.

    Args:
        audio: tensor or NumPy array, [B, C, samples], or [C, samples] for one sample; floats, or int16 or int32
            whose largest value stands for 1.
        sample_rate: its sample rate in Hz, at least 1; a fraction is ignored, as AudioCraft does.
        channels: channels of the codec; 1 and 2 are always allowed.
        name: what the audio is, for errors.
    Returns:
        Float32 [B, C, samples] on the CPU or the device of `audio`, without gradients.
    Raises:
        ValueError: the message says what is wrong with it.
    """
    if isinstance(audio, np.ndarray):
        audio = _tensor(audio, name)
    if not isinstance(audio, torch.Tensor) or audio.layout != torch.strided or audio.is_meta:
        raise ValueError(f"{name} must be a dense tensor or a NumPy array, got {type(audio).__name__}")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, float)) or not 1 <= sample_rate < float("inf"):
        raise ValueError(f"the sample rate of {name} is {sample_rate!r}; give it in Hz, such as 16000")
    if audio.dtype in _INTEGERS:
        audio = audio.float() / _INTEGERS[audio.dtype]
    elif not audio.is_floating_point():
        raise _wrong_dtype(name, str(audio.dtype).removeprefix("torch."))
    audio = audio.detach().float()
    audio = audio[None] if audio.dim() == 2 else audio
    if audio.dim() != 3 or not audio.numel():
        raise ValueError(f"{name} must be [B, C, samples] and be non-empty, got {list(audio.shape)}")
    if audio.shape[1] not in (1, 2, channels):
        raise ValueError(f"{name} has {audio.shape[1]} channels; give 1, 2 or the codec's {channels}, shaped "
                         "[B, C, samples]")
    if not audio.isfinite().all():
        raise ValueError(f"{name} has values that are infinite or not a number")
    return audio


def _tensor(audio: np.ndarray, name: str) -> torch.Tensor:
    """Copy an array; torch reads neither all dtypes nor arrays that are read-only or run backwards."""
    try:
        return torch.from_numpy(audio.copy())
    except TypeError:
        raise _wrong_dtype(name, str(audio.dtype)) from None


def _wrong_dtype(name: str, dtype: str) -> ValueError:
    return ValueError(f"{name} has dtype {dtype}; give floats, int16 or int32")
