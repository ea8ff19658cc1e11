"""Attention contexts."""
import pytest
import torch

from magnet_plugin.modules.context import Band, Causal, Full


def slow_band(seq_len, width):
    return [[abs(t - s) <= width for s in range(seq_len)] for t in range(seq_len)]


def test_a_band_allows_frames_on_both_sides():
    for seq_len, width in [(1, 0), (6, 0), (7, 2), (9, 20)]:
        assert Band(width).dense(seq_len, seq_len).tolist() == slow_band(seq_len, width)
    assert Causal().dense(3, 3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert Full().dense(2, 3).all() and Full().dense(2, 3).shape == (2, 3)


def test_the_local_mask_of_xformers_is_the_same_band():
    fmha = pytest.importorskip("xformers.ops.fmha.attn_bias")
    for seq_len, width in [(5, 0), (20, 5), (20, 19), (33, 1)]:
        bias = fmha.LocalAttentionFromBottomRightMask(width, width).materialize((seq_len, seq_len))
        assert torch.equal(bias == 0, Band(width).dense(seq_len, seq_len)), f"{seq_len=} {width=}"


def test_invalid_bands_are_refused():
    with pytest.raises(ValueError, match="width"):
        Band(-1)
    for context in (Band(5), Causal()):
        for method in (context.dense, context.reduced):
            with pytest.raises(ValueError, match=f"{type(context).__name__} is for self-attention, got 50 queries and 20"):
                method(50, 20)
