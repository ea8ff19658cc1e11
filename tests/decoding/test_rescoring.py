"""The combination of two models' probabilities, by itself: functions stand in for the models."""
import dataclasses
import random
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.rescoring import Draw, Rescored, Rescoring, at, combine, place, sharpen
from magnet_plugin.decoding.rescoring_options import RescoringOptions

B, K, T, CARD = 2, 4, 9, 6


def probs(seed: int, *shape: int) -> torch.Tensor:
    return torch.softmax(2 * torch.randn(*shape, CARD, generator=torch.Generator().manual_seed(seed)), dim=-1)


def greedy(weights: torch.Tensor) -> torch.Tensor:
    return weights.argmax(dim=-1)


def rescoring(score: tp.Callable[[torch.Tensor, int], torch.Tensor], **options: tp.Any) -> Rescoring:
    settings = {"weight": 0.5, "anneal": False, **options}
    return Rescoring(score, RescoringOptions(**{f"rescorer_{name}": value for name, value in settings.items()}))


def ask(own: torch.Tensor, opinion: torch.Tensor, positions: torch.Tensor, draw: Draw = greedy, temperature: float = 1.0,
        **options: tp.Any) -> tuple[Rescored, torch.Tensor]:
    """One rescored step; the candidate as well."""
    candidate = torch.randint(0, CARD, (B, K, T), generator=torch.Generator().manual_seed(9))
    seen: list[torch.Tensor] = []

    def score(tokens: torch.Tensor, stage: int) -> torch.Tensor:
        assert stage == 1
        seen.append(tokens)
        return opinion

    result = rescoring(score, **options).rescore(own, positions, candidate, 1, temperature, draw)
    assert len(seen) == 1 and torch.equal(seen[0], candidate)
    return result, candidate


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.9])
def test_the_combination_is_convex_and_in_probabilities(weight: float) -> None:
    """Against a loop over plain numbers: tokens drawn from w p_M + (1 - w) p_R, and scored with the same."""
    own, opinion = probs(0, B, 3), probs(1, B, T)
    positions = torch.tensor([[0, 4, 8], [2, 3, 7]])
    result, _ = ask(own, opinion, positions, weight=weight)
    differs = 0
    for b in range(B):
        for m in range(3):
            mixed = [weight * float(own[b, m, c]) + (1 - weight) * float(opinion[b, int(positions[b, m]), c])
                     for c in range(CARD)]
            best = max(range(CARD), key=lambda c: mixed[c])
            assert sum(mixed) == pytest.approx(1, abs=1e-6)
            assert int(result.tokens[b, m]) == best, (b, m)
            assert float(result.probs[b, m]) == pytest.approx(mixed[best], abs=1e-6)
            differs += best != int(own[b, m].argmax())
    assert differs or weight > 0.5, "the rescorer decided nothing: choose other probabilities"
    assert bool(result.finite)


def test_tokens_are_drawn_with_the_combination_as_their_distribution() -> None:
    own, opinion = probs(2, 1, 1).expand(B, T, -1), probs(3, 1, 1).expand(B, T, -1)
    seen: list[torch.Tensor] = []

    def draw(weights: torch.Tensor) -> torch.Tensor:
        seen.append(weights)
        return greedy(weights)

    ask(own, opinion, torch.arange(T).expand(B, T), draw, weight=0.25)
    assert len(seen) == 1 and torch.allclose(seen[0], 0.25 * own + 0.75 * opinion, atol=1e-7)


def test_without_resampling_only_the_scores_change() -> None:
    own, opinion = probs(4, B, 2), probs(5, B, T)
    positions = torch.tensor([[1, 5], [8, 0]])
    result, candidate = ask(own, opinion, positions, resample=False)
    for b in range(B):
        for m in range(2):
            t = int(positions[b, m])
            token = int(candidate[b, 1, t])
            assert int(result.tokens[b, m]) == token
            expected = 0.5 * float(own[b, m, token]) + 0.5 * float(opinion[b, t, token])
            assert float(result.probs[b, m]) == pytest.approx(expected, abs=1e-6)


def test_annealing_only_ever_sharpens() -> None:
    logits = torch.randn(B, T, CARD, generator=torch.Generator().manual_seed(6))
    opinion, own = logits.softmax(-1), torch.full((B, T, CARD), 1 / CARD)
    everywhere = torch.arange(T).expand(B, T)
    for temperature, effective in ((3.0, 1.0), (1.0, 1.0), (0.5, 0.5), (0.01, 0.01)):
        result, _ = ask(own, opinion, everywhere, temperature=temperature, weight=0.4, anneal=True)
        expected = 0.4 / CARD + 0.6 * (logits / effective).softmax(-1).max(-1).values
        assert torch.allclose(result.probs, expected, atol=1e-6), temperature
        plain, _ = ask(own, opinion, everywhere, temperature=temperature, weight=0.4, anneal=False)
        assert torch.allclose(plain.probs, 0.4 / CARD + 0.6 * opinion.max(-1).values, atol=1e-6)
    one_hot = torch.tensor([[0.0, 1.0, 0.0]])
    assert torch.equal(sharpen(one_hot, 0.01), one_hot) and sharpen(one_hot, 1.0) is one_hot


def test_what_is_not_finite_is_told() -> None:
    own, opinion = probs(0, B, T), probs(1, B, T)
    everywhere = torch.arange(T).expand(B, T)
    for broken in (float("nan"), float("inf")):
        bad = opinion.clone()
        bad[1, 3, 2] = broken
        assert not bool(ask(own, bad, everywhere)[0].finite) and not bool(ask(bad, opinion, everywhere)[0].finite)


def test_weight_one_is_nothing_at_all() -> None:
    own = probs(0, B, T)
    assert combine(own, torch.full_like(own, float("nan")), 1.0) is own

    class Untouchable:
        name = "untouchable"

        def scorer(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            raise AssertionError("the rescorer was touched")

    assert Rescoring.of(Untouchable(), RescoringOptions(), [], 1) is None
    assert Rescoring.of(None, RescoringOptions(), [], 1) is None
    with pytest.raises(ValueError, match="rescorer_weight=0.5 needs a rescorer"):
        Rescoring.of(None, RescoringOptions(rescorer_weight=0.5), [], 1)


def test_conditions_are_embedded_once_and_settings_are_passed_on() -> None:
    calls: list[tuple[tp.Any, ...]] = []

    class Noting:
        name = "noting"

        def scorer(self, *args: tp.Any) -> tp.Any:
            calls.append(args)
            return lambda tokens, stage: probs(0, B, T)

    options = RescoringOptions(rescorer_weight=0.5, rescorer_cfg_coef=3.0, rescorer_fill="greedy")
    found = Rescoring.of(Noting(), options, ["a", "b"], 2)
    assert found is not None and found.options is options and calls == [(["a", "b"], 2, 3.0, "greedy")]


def test_when_the_rescorer_is_asked() -> None:
    """Slow reference: walk back from the last step, n at a time."""
    draw = random.Random(3)
    for _ in range(50):
        steps, every = draw.randint(1, 20), draw.randint(1, 25)
        stages = draw.choice([None, (0,), (1, 3)])
        when = rescoring(lambda tokens, stage: tokens, every=every, stages=stages)
        for stage in range(K):
            expected, step = set(), steps - 1
            while step >= 0 and (stages is None or stage in stages):
                expected.add(step)
                step -= every
            assert {i for i in range(steps) if when.applies(stage, i, steps)} == expected, (steps, every, stages)
    assert not any(rescoring(lambda tokens, stage: tokens, weight=1).applies(0, i, 5) for i in range(5))


def test_at_and_place_are_inverse() -> None:
    values, positions = probs(7, B, T), torch.stack([torch.randperm(T)[:4] for _ in range(B)])
    picked = at(values, positions)
    for b in range(B):
        for m in range(4):
            assert torch.equal(picked[b, m], values[b, positions[b, m]])
    tokens = torch.randint(0, CARD, (B, K, T))
    before, new = tokens.clone(), torch.randint(0, CARD, (B, 4))
    placed = place(tokens, 2, positions, new)
    assert torch.equal(tokens, before) and torch.equal(placed[:, 2].gather(1, positions), new)
    placed[:, 2] = placed[:, 2].scatter(1, positions, before[:, 2].gather(1, positions))
    assert torch.equal(placed, before)


BAD = [
    ({"weight": -0.1}, "rescorer_weight=-0.1.*1 switches"), ({"weight": 1.1}, "rescorer_weight=1.1"),
    ({"weight": float("nan")}, "rescorer_weight=nan"), ({"stages": []}, "names no stage"),
    ({"stages": "ab"}, "rescorer_stages='ab' must be a list"), ({"every": 0}, "rescorer_every=0"),
    ({"every": 1.5}, "rescorer_every=1.5"), ({"cfg_coef": -1}, "rescorer_cfg_coef=-1"),
    ({"fill": "zeros"}, "rescorer_fill='zeros'.*special, greedy"),
]


@pytest.mark.parametrize("options,words", BAD, ids=[words.split("=")[0] + str(i) for i, (_, words) in enumerate(BAD)])
def test_bad_settings_are_told(options: dict[str, tp.Any], words: str) -> None:
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
    assert not dataclasses.asdict(RescoringOptions())["rescorer_weight"] < 1
