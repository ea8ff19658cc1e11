"""Combining the probabilities of two models; functions stand in for the models."""
import random
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.random_source import RandomSource
from magnet_plugin.decoding.rescoring import NO_RESCORING, Candidate, Rescoring, combine, sharpen
from magnet_plugin.decoding.rescoring_options import RescoringOptions
from magnet_plugin.decoding.sampling import Sampler
from magnet_plugin.decoding.steps import Step

B, K, T, CARD = 2, 4, 9, 6


def probs(seed: int, *shape: int) -> torch.Tensor:
    return torch.softmax(2 * torch.randn(*shape, CARD, generator=torch.Generator().manual_seed(seed)), dim=-1)


GREEDY = Sampler(use_sampling=False)


def step(stage: int = 1, index: int = 0, count: int = 1, temperature: float = 1.0) -> Step:
    return Step(stage, index, count, torch.ones(()), 1.0, temperature)


def rescoring(score: tp.Callable[[torch.Tensor, int], torch.Tensor], **options: tp.Any) -> Rescoring:
    settings = {"weight": 0.5, "anneal": False, **options}
    return Rescoring(score, RescoringOptions(**{f"rescorer_{name}": value for name, value in settings.items()}))


def chosen(candidate: Candidate) -> torch.Tensor:
    """Probabilities of the sampled tokens, [B, M]."""
    return candidate.likelihood().gather(1, candidate.frames)


def rescore(own: torch.Tensor, theirs: torch.Tensor, frames: torch.Tensor, sampler: Sampler = GREEDY,
            temperature: float = 1.0, **options: tp.Any) -> tuple[Candidate, torch.Tensor]:
    """Rescore one step; returns the result and the tokens before it."""
    tokens = torch.randint(0, CARD, (B, K, T), generator=torch.Generator().manual_seed(9))
    seen: list[torch.Tensor] = []

    def score(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        assert stage == 1
        seen.append(tokens)
        return theirs

    masked = torch.zeros(B, T, dtype=torch.bool).scatter(1, frames, True)
    candidate = Candidate(tokens, 1, masked, frames, tokens[:, 1].gather(1, frames), own, torch.tensor(True))
    result = rescoring(score, **options).rescore(candidate, step(temperature=temperature), sampler, None)
    assert len(seen) == 1 and torch.equal(seen[0], tokens)
    return result, tokens


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.9])
def test_probabilities_of_both_models_are_averaged_with_the_weight(weight: float) -> None:
    """Tokens are sampled from w p_M + (1 - w) p_R and scored with it; compared with a loop over plain numbers."""
    own, theirs = probs(0, B, 3), probs(1, B, T)
    positions = torch.tensor([[0, 4, 8], [2, 3, 7]])
    result, _ = rescore(own, theirs, positions, weight=weight)
    differs = 0
    for b in range(B):
        for m in range(3):
            mixed = [weight * float(own[b, m, c]) + (1 - weight) * float(theirs[b, int(positions[b, m]), c])
                     for c in range(CARD)]
            best = max(range(CARD), key=lambda c: mixed[c])
            assert sum(mixed) == pytest.approx(1, abs=1e-6)
            assert int(result.sampled[b, m]) == best, (b, m)
            assert float(chosen(result)[b, m]) == pytest.approx(mixed[best], abs=1e-6)
            differs += best != int(own[b, m].argmax())
    assert differs or weight > 0.5, "the rescorer changed no token: choose other probabilities"
    assert bool(result.finite)


def test_tokens_are_sampled_from_the_combined_distribution() -> None:
    own, theirs = probs(2, 1, 1).expand(B, T, -1), probs(3, 1, 1).expand(B, T, -1)
    seen: list[torch.Tensor] = []

    class Recording(Sampler):
        def draw(self, probs: torch.Tensor, uniforms: tp.Optional[torch.Tensor] = None,
                 noise: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
            seen.append(probs)
            return super().draw(probs, uniforms, noise)

    rescore(own, theirs, torch.arange(T).expand(B, T), Recording(use_sampling=False), weight=0.25)
    assert len(seen) == 1 and torch.allclose(seen[0], 0.25 * own + 0.75 * theirs, atol=1e-7)


def test_without_resampling_only_the_scores_change() -> None:
    own, theirs = probs(4, B, 2), probs(5, B, T)
    positions = torch.tensor([[1, 5], [8, 0]])
    result, candidate = rescore(own, theirs, positions, resample=False)
    for b in range(B):
        for m in range(2):
            t = int(positions[b, m])
            token = int(candidate[b, 1, t])
            assert int(result.sampled[b, m]) == token
            expected = 0.5 * float(own[b, m, token]) + 0.5 * float(theirs[b, t, token])
            assert float(chosen(result)[b, m]) == pytest.approx(expected, abs=1e-6)


def test_a_rescored_step_samples_twice_with_the_same_noise() -> None:
    """If the models agree, the rescored tokens are those of the candidate. Steps without rescoring need no noise."""
    own = probs(8, B, T)
    sampler = Sampler(use_sampling=True, random=RandomSource.seeded([0, 1]))
    everywhere = torch.arange(T).expand(B, T)
    agreeing = rescoring(lambda tokens, stage: own, stages=(1,))
    noise = agreeing.noise(sampler, own, everywhere, T, step(stage=1))
    sampled = sampler.sample(own.log(), own, noise=noise)
    tokens = torch.zeros(B, K, T, dtype=torch.long)
    masked = torch.ones(B, T, dtype=torch.bool)
    candidate = Candidate.fill(tokens, 1, masked, everywhere, sampled, own, torch.tensor(True))
    result = agreeing.rescore(candidate, step(stage=1), sampler, noise)
    assert torch.equal(result.tokens, candidate.tokens) and result.tokens[:, 1].unique().numel() > 2
    assert agreeing.noise(sampler, own, everywhere, T, step(stage=0)) is None


def test_annealing_only_applies_temperatures_below_one() -> None:
    logits = torch.randn(B, T, CARD, generator=torch.Generator().manual_seed(6))
    theirs, own = logits.softmax(-1), torch.full((B, T, CARD), 1 / CARD)
    everywhere = torch.arange(T).expand(B, T)
    for temperature, effective in ((3.0, 1.0), (1.0, 1.0), (0.5, 0.5), (0.01, 0.01)):
        result, _ = rescore(own, theirs, everywhere, temperature=temperature, weight=0.4, anneal=True)
        expected = 0.4 / CARD + 0.6 * (logits / effective).softmax(-1).max(-1).values
        assert torch.allclose(chosen(result), expected, atol=1e-6), temperature
        plain, _ = rescore(own, theirs, everywhere, temperature=temperature, weight=0.4, anneal=False)
        assert torch.allclose(chosen(plain), 0.4 / CARD + 0.6 * theirs.max(-1).values, atol=1e-6)
    one_hot = torch.tensor([[0.0, 1.0, 0.0]])
    assert torch.equal(sharpen(one_hot, 0.01), one_hot) and sharpen(one_hot, 1.0) is one_hot


def test_non_finite_probabilities_are_flagged() -> None:
    own, theirs = probs(0, B, T), probs(1, B, T)
    everywhere = torch.arange(T).expand(B, T)
    for broken in (float("nan"), float("inf")):
        bad = theirs.clone()
        bad[1, 3, 2] = broken
        assert not bool(rescore(own, bad, everywhere)[0].finite) and not bool(rescore(bad, theirs, everywhere)[0].finite)


def test_weight_one_does_not_use_the_rescorer() -> None:
    own = probs(0, B, T)
    assert combine(own, torch.full_like(own, float("nan")), 1.0) is own

    class Unused:
        name = "unused"

        def scorer(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            raise AssertionError("the rescorer was used")

    for rescorer in (Unused(), None):
        assert Rescoring.of(rescorer, RescoringOptions(), [], 1) is NO_RESCORING
    with pytest.raises(ValueError, match="rescorer_weight=0.5 needs a rescorer"):
        Rescoring.of(None, RescoringOptions(rescorer_weight=0.5), [], 1)


def test_a_scorer_is_created_once_with_the_settings_of_the_rescorer() -> None:
    calls: list[tuple[tp.Any, ...]] = []

    class RecordingRescorer:
        name = "recording"

        def scorer(self, *args: tp.Any) -> tp.Any:
            calls.append(args)
            return lambda tokens, stage: probs(0, B, T)

    options = RescoringOptions(rescorer_weight=0.5, rescorer_cfg_coef=3.0, rescorer_fill="greedy")
    found = Rescoring.of(RecordingRescorer(), options, ["a", "b"], 2)
    assert isinstance(found, Rescoring) and found.options is options and calls == [(["a", "b"], 2, 3.0, "greedy")]


def test_every_nth_step_counted_from_the_last_is_rescored() -> None:
    """Compared with a loop that goes back from the last step, n steps at a time."""
    draw = random.Random(3)
    for _ in range(50):
        steps, every = draw.randint(1, 20), draw.randint(1, 25)
        stages = draw.choice([None, (0,), (1, 3)])
        when = rescoring(lambda tokens, stage: tokens, every=every, stages=stages)
        for stage in range(K):
            expected, index = set(), steps - 1
            while index >= 0 and (stages is None or stage in stages):
                expected.add(index)
                index -= every
            assert {i for i in range(steps) if when.applies(step(stage, i, steps))} == expected, (steps, every, stages)


BAD = [
    ({"weight": -0.1}, "rescorer_weight=-0.1.*1 disables"), ({"weight": 1.1}, "rescorer_weight=1.1"),
    ({"weight": float("nan")}, "rescorer_weight=nan"), ({"stages": []}, "is empty; set None"),
    ({"stages": "ab"}, "rescorer_stages='ab' must be a list"), ({"every": 0}, "rescorer_every=0"),
    ({"every": 1.5}, "rescorer_every=1.5"), ({"cfg_coef": -1}, "rescorer_cfg_coef=-1"),
    ({"fill": "zeros"}, "rescorer_fill='zeros'.*special, greedy"),
]


@pytest.mark.parametrize("options,words", BAD, ids=[words.split("=")[0] + str(i) for i, (_, words) in enumerate(BAD)])
def test_invalid_settings_are_refused_with_a_remedy(options: dict[str, tp.Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RescoringOptions(**{f"rescorer_{name}": value for name, value in options.items()})


def test_stages_are_checked_against_the_model() -> None:
    options = RescoringOptions(rescorer_stages=[3, 0, 3])         # type: ignore[arg-type]
    assert options.rescorer_stages == (0, 3)
    options.check_rescorer_stages(4)
    with pytest.raises(ValueError, match=r"\[0, 3\]: the model has stages 0 to 2, not 3"):
        options.check_rescorer_stages(3)
    with pytest.raises(ValueError, match="not -1"):
        RescoringOptions(rescorer_stages=(-1,)).check_rescorer_stages(4)
    RescoringOptions().check_rescorer_stages(1)
