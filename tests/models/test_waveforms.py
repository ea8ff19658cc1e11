"""Audio as callers give it."""
import typing as tp

import numpy as np
import pytest
import torch

from magnet_plugin.models.waveforms import read_waveform


def read(audio: tp.Any, sample_rate: tp.Any = 16000, channels: int = 1) -> torch.Tensor:
    return read_waveform(audio, sample_rate, channels, "the recording")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_of_floats_become_float32(dtype: torch.dtype) -> None:
    audio = torch.tensor([[[0.5, -0.25, 2.0]]], dtype=dtype)
    assert read(audio).dtype == torch.float32 and torch.equal(read(audio), torch.tensor([[[0.5, -0.25, 2.0]]]))
    assert torch.equal(read(audio[0]), read(audio)), "one sample"


@pytest.mark.parametrize("dtype, largest", [("int16", 2 ** 15), ("int32", 2 ** 31)])
def test_the_largest_integer_stands_for_one(dtype: str, largest: int) -> None:
    audio = np.array([[[0, largest // 2, -largest]]], dtype=dtype)
    for one in (audio, torch.from_numpy(audio)):
        assert torch.equal(read(one), torch.tensor([[[0.0, 0.5, -1.0]]]))


def test_arrays_may_run_backwards_be_read_only_or_double() -> None:
    audio = np.linspace(-1, 1, 8, dtype=np.float64).reshape(1, 2, 4)
    backwards = audio[..., ::-1]
    assert read(backwards).dtype == torch.float32
    assert torch.equal(read(backwards), read(np.ascontiguousarray(backwards)))
    audio.flags.writeable = False
    result = read(audio)
    result += 1
    assert audio.max() == 1, "the caller's array is unchanged"


def test_gradients_do_not_flow_into_the_result() -> None:
    assert not read(torch.zeros(1, 1, 4, requires_grad=True)).requires_grad


@pytest.mark.parametrize("channels, given, allowed", [(1, 1, True), (1, 2, True), (2, 1, True), (6, 6, True), (1, 3, False),
                                                      (6, 5, False)])
def test_one_two_or_the_codecs_channels_are_allowed(channels: int, given: int, allowed: bool) -> None:
    audio = torch.zeros(1, given, 4)
    if allowed:
        assert read(audio, channels=channels).shape == audio.shape
    else:
        with pytest.raises(ValueError, match=f"the recording has {given} channels; give 1, 2 or the codec's {channels}"):
            read(audio, channels=channels)


ZEROS = torch.zeros(1, 1, 4)
BAD: list[tuple[tp.Any, tp.Any, str]] = [
    ([0.0], 16000, "must be a dense tensor or a NumPy array, got list"),
    (ZEROS.to_sparse(), 16000, "must be a dense tensor"), (ZEROS.to("meta"), 16000, "must be a dense tensor"),
    (torch.zeros(4), 16000, "must be \\[B, C, samples\\] and be non-empty, got \\[4\\]"),
    (torch.zeros(1, 1, 0), 16000, "non-empty"), (torch.zeros(0, 1, 4), 16000, "non-empty"),
    (torch.zeros(1, 1, 1, 4), 16000, "must be \\[B, C, samples\\]"),
    (ZEROS.to(torch.uint8), 16000, "dtype uint8; give floats, int16 or int32"), (ZEROS.long(), 16000, "dtype int64"),
    (ZEROS.bool(), 16000, "dtype bool"), (ZEROS.to(torch.complex64), 16000, "dtype complex64"),
    (np.zeros((1, 1, 4), dtype="U1"), 16000, "dtype <U1"), (np.zeros((1, 1, 4), dtype=object), 16000, "dtype object"),
    (ZEROS + float("nan"), 16000, "infinite or not a number"), (ZEROS + float("inf"), 16000, "infinite or not a number"),
    (ZEROS.double() + 1e300, 16000, "infinite or not a number"),
    *((ZEROS, rate, "the sample rate of the recording is .*; give it in Hz") for rate in (
        0, 0.5, -1, float("nan"), float("inf"), None, "16000", True)),
]


@pytest.mark.parametrize("audio, rate, words", BAD)
def test_what_is_no_audio_is_refused(audio: tp.Any, rate: tp.Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(audio, rate)
