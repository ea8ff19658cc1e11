"""The decoding loop with a rescorer; functions stand in for both models."""
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.magnet import NonFiniteLogits
from magnet_plugin.decoding.rescoring import Score

from ..helpers.oracles import CARD, STEPS, K, nothing_known, random_logits, run

ARRANGEMENTS = ("stride1", "nonoverlap")


def random_scores(batch: int, length: int, seed: int = 5) -> Score:
    """Probabilities that depend on stage and position."""
    table = (2 * torch.randn(K, batch, length, CARD, generator=torch.Generator().manual_seed(seed))).softmax(-1)
    return lambda tokens, stage: table[stage]


def some_known(batch: int, length: int) -> KnownTokens:
    known = torch.rand(batch, K, length, generator=torch.Generator().manual_seed(2)) < 0.2
    return KnownTokens(torch.full((batch, K, length), 7), known)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("sampling", [True, False])
def test_weight_one_equals_no_rescorer_and_a_weight_just_below_changes_little(arrangement: str, sampling: bool) -> None:
    """Both draws of a step share their noise, so the small weight of the rescorer changes few tokens."""
    predict, clip = random_logits(2, 40), some_known(2, 40)
    how: dict[str, tp.Any] = {"span_arrangement": arrangement, "use_sampling": sampling}

    def unused(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        raise AssertionError("the rescorer was used at weight 1")

    unrescored = run(predict, clip, **how)
    assert torch.equal(run(predict, clip, unused, rescorer_weight=1.0, **how), unrescored)
    near, other = (run(predict, clip, random_scores(2, 40, seed=seed), rescorer_weight=1 - 1e-7, **how) for seed in (3, 4))
    assert (near == other).float().mean() > 0.99
    if not sampling:
        assert (near == unrescored).float().mean() > 0.99
    assert (run(predict, clip, random_scores(2, 40), rescorer_weight=0.2, **how) == unrescored).float().mean() < 0.9


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_at_weight_zero_only_the_rescorer_decides_unknown_tokens(arrangement: str) -> None:
    clip = some_known(2, 31)
    wanted = torch.randint(0, CARD, (2, K, 31), generator=torch.Generator().manual_seed(4))

    def score(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(wanted[:, stage], CARD).float()

    tokens = run(random_logits(2, 31), clip, score, rescorer_weight=0.0, span_arrangement=arrangement)
    assert torch.equal(tokens, torch.where(clip.known, clip.tokens, wanted))


def test_the_rescorer_sees_a_complete_candidate_at_the_selected_steps() -> None:
    """There is no mask token up to the stage; above it, all unknown tokens are masked."""
    clip, seen = some_known(2, 25), []
    table = random_scores(2, 25)

    def check(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        seen.append(stage)
        assert (tokens[:, :stage + 1] != CARD).all()
        assert torch.equal(tokens[:, stage + 1:] == CARD, ~clip.known[:, stage + 1:])
        assert (tokens[clip.known] == 7).all()
        return table(tokens, stage)

    run(random_logits(2, 25), clip, check, rescorer_weight=0.5)
    assert seen == [stage for stage in range(K) for _ in range(STEPS[stage])]
    seen.clear()
    run(random_logits(2, 25), clip, check, rescorer_weight=0.5, rescorer_stages=(0, 2), rescorer_every=2)
    assert seen == [0, 0, 0, 2]


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_combined_probabilities_decide_what_is_masked_next(arrangement: str) -> None:
    """MAGNeT is certain of all frames; the rescorer gives its tokens in some frames a low probability."""
    length, masked = 24, []
    certain = torch.full((1, length, CARD), -30.0)
    certain[..., 3] = 30.0
    unlikely = torch.zeros(length, dtype=torch.bool)
    unlikely[9:15] = True

    def predict(tokens: torch.Tensor, stage: int, scale: float) -> torch.Tensor:
        masked.append(tokens[0, stage] == CARD)
        return certain

    def score(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        probs = torch.zeros(1, length, CARD)
        probs[..., 3] = torch.where(unlikely, 0.01, 0.99)
        probs[..., 4] = 1 - probs[..., 3]
        return probs

    tokens = run(predict, nothing_known(1, length), score, rescorer_weight=0.5, rescorer_resample=False,
                 decoding_steps=(8, 1, 1, 1), span_arrangement=arrangement)
    assert (tokens == 3).all(), "without resampling, MAGNeT's tokens are kept"
    second = [mask for mask in masked[:8] if mask.sum() <= 9]
    assert second and all((unlikely | ~mask)[mask].float().mean() >= 0.6 for mask in second)
    assert all(unlikely[mask].any() for mask in second)


def test_non_finite_scores_of_a_rescorer_raise() -> None:
    table = random_scores(1, 12)

    def broken(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        return table(tokens, stage) * (float("nan") if stage == 1 else 1)

    with pytest.raises(NonFiniteLogits, match="stage 1, step 0"):
        run(random_logits(1, 12), nothing_known(1, 12), broken, rescorer_weight=0.5)
