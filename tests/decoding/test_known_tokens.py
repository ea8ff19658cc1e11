"""The tokens that decoding keeps."""
import pytest
import torch

from magnet_plugin.decoding.known_tokens import KnownTokens

from ..helpers.oracles import K


def test_a_prompt_fills_the_first_frames_of_every_codebook() -> None:
    prompt = torch.arange(2 * K * 3).view(2, K, 3)
    clip = KnownTokens.from_prompt(prompt, 5)
    masked = clip.masked(99)
    assert torch.equal(masked[..., :3], prompt) and (masked[..., 3:] == 99).all()
    assert clip.most_free() == [2] * K


def test_most_free_is_the_largest_number_of_unknown_frames_of_a_sample() -> None:
    known = torch.zeros(2, K, 5, dtype=torch.bool)
    known[0, 0], known[1, 0, :2], known[:, 1] = True, True, True
    assert KnownTokens(torch.zeros(2, K, 5, dtype=torch.long), known).most_free() == [3, 0, 5, 5]


def test_a_prompt_that_fills_the_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt has 9 frames.*duration"):
        KnownTokens.from_prompt(torch.zeros(1, K, 9, dtype=torch.long), 9)
