"""Classifier-free guidance, and reusing the difference between the branches."""
import pytest
import torch

from magnet_plugin.modules.guidance import GuidedPredictor, for_branches, guide
from magnet_plugin.modules.tokens import gather_frames

B, K, T, CARD = 2, 4, 10, 5
TOKENS = torch.zeros(B, K, T, dtype=torch.long)
ALL_FRAMES = torch.arange(T).expand(B, T)


class RandomForward:
    """A `guidance.Forward` that returns other logits in each call and keeps those of both branches."""

    def __init__(self) -> None:
        self.both_branches: list[bool] = []
        self.conditional: list[torch.Tensor] = []
        self.unconditional: list[torch.Tensor] = []

    def __call__(self, tokens: torch.Tensor, stage: int, frames: torch.Tensor, both_branches: bool) -> torch.Tensor:
        logits = torch.randn(2 * B, T, CARD, generator=torch.Generator().manual_seed(len(self.both_branches)))
        self.both_branches.append(both_branches)
        self.conditional.append(logits[:B])
        self.unconditional.append(logits[B:])
        return gather_frames(logits if both_branches else logits[:B], for_branches(frames, both_branches))


def test_guidance_extrapolates_from_the_unconditional_to_the_conditional_logits() -> None:
    assert guide(torch.tensor(2.0), torch.tensor(0.5), 3.0) == 0.5 + 3 * 1.5
    forward = RandomForward()
    found = GuidedPredictor(forward, guided=True).logits(TOKENS, 0, 3.0, ALL_FRAMES)
    torch.testing.assert_close(found, 3 * forward.conditional[0] - 2 * forward.unconditional[0])


@pytest.mark.parametrize("guided, scale", [(True, 1.0), (True, 0.9999996), (False, 3.0)])
def test_without_guidance_only_the_conditional_branch_is_computed(guided: bool, scale: float) -> None:
    forward = RandomForward()
    found = GuidedPredictor(forward, guided).logits(TOKENS, 0, scale, ALL_FRAMES)
    assert forward.both_branches == [False] and torch.equal(found, forward.conditional[0])


def test_the_difference_between_the_branches_is_reused_until_the_next_stage() -> None:
    forward = RandomForward()
    predictor, some_frames = GuidedPredictor(forward, guided=True, every=2), torch.tensor([[5, 0], [2, 9]])
    predictor.logits(TOKENS, 1, 4.0, ALL_FRAMES)
    found = predictor.logits(TOKENS, 1, 2.5, some_frames)
    expected = forward.conditional[1] + (2.5 - 1) * (forward.conditional[0] - forward.unconditional[0])
    torch.testing.assert_close(found, gather_frames(expected, some_frames))
    predictor.logits(TOKENS, 2, 4.0, ALL_FRAMES)
    assert forward.both_branches == [True, False, True]
