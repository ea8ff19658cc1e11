"""Audio as callers give it: checked, and converted to float32 [B, C, samples]."""
import typing as tp

import torch

_INTEGERS = {torch.int16: 2 ** 15, torch.int32: 2 ** 31}


def read_waveform(audio: tp.Any, sample_rate: int, channels: int, name: str) -> torch.Tensor:
    """Check audio that a caller gave.

    Args:
        audio: tensor or NumPy array, [B, C, samples], or [C, samples] for one sample; floats, or int16 or int32
            whose largest value stands for 1.
        sample_rate: its sample rate in Hz.
        channels: channels of the codec; 1 and 2 are always allowed.
        name: what the audio is, for errors.
    Returns:
        Float32 [B, C, samples] on the CPU or the device of `audio`.
    Raises:
        ValueError: the message says what is wrong with it.
    """
    if type(audio).__module__ == "numpy":
        audio = torch.as_tensor(audio)
    if not isinstance(audio, torch.Tensor) or audio.layout != torch.strided or audio.is_meta:
        raise ValueError(f"{name} must be a dense tensor or a NumPy array, got {type(audio).__name__}")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, float)) or not 0 < sample_rate < float("inf"):
        raise ValueError(f"the sample rate of {name} is {sample_rate!r}; give it in Hz, such as 16000")
    if audio.dtype in _INTEGERS:
        audio = audio.float() / _INTEGERS[audio.dtype]
    elif not audio.is_floating_point():
        raise ValueError(f"{name} has dtype {str(audio.dtype).removeprefix('torch.')}; give floats, int16 or int32")
    audio = audio[None] if audio.dim() == 2 else audio
    if audio.dim() != 3 or not audio.numel():
        raise ValueError(f"{name} must be [B, C, samples] and be non-empty, got {list(audio.shape)}")
    if audio.shape[1] not in (1, 2, channels):
        raise ValueError(f"{name} has {audio.shape[1]} channels; give 1, 2 or the codec's {channels}, shaped "
                         "[B, C, samples]")
    if not audio.isfinite().all():
        raise ValueError(f"{name} has values that are infinite or not a number")
    return audio.float()
