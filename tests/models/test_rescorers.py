"""Models as rescorers: their scores equal the model's own predictions and depend on no token that they must not see."""
import typing as tp

import pytest
import torch

import magnet_plugin
from tests.helpers.small_models import build, conditions
from tests.helpers.small_musicgens import build_musicgen, scale_all_weights

magnet_plugin.register()
from audiocraft.modules.codebooks_patterns import (  # noqa: E402
    DelayedPatternProvider,
    ParallelPatternProvider,
    UnrolledPatternProvider,
)

from magnet_plugin.decoding.options import GenerationOptions  # noqa: E402
from magnet_plugin.engine.engines import engine_for  # noqa: E402
from magnet_plugin.models.causal import CausalSource  # noqa: E402
from magnet_plugin.models.lm_magnet import MagnetLMModel  # noqa: E402
from magnet_plugin.models.predictors import predictor  # noqa: E402
from magnet_plugin.models.rescorers import CausalRescorer, MaskedRescorer, rescorer_of  # noqa: E402

K, T, CARD = 4, 7, 16
TEXTS = ("a fast reel on the flute", "a slow waltz")


def tokens_of(batch: int = 2, length: int = T, seed: int = 0, card: int = CARD) -> torch.Tensor:
    return torch.randint(0, card, (batch, K, length), generator=torch.Generator().manual_seed(seed))


def candidate(stage: int, **how: tp.Any) -> torch.Tensor:
    """Filled up to `stage`, the mask token above."""
    tokens = tokens_of(**how)
    tokens[:, stage + 1:] = CARD
    return tokens


@pytest.mark.parametrize("delays", [(0, 1, 2, 3), (0, 0, 2, 4), (0, 0, 0, 0)])
@pytest.mark.parametrize("stage", range(K))
def test_a_causal_score_depends_on_exactly_the_tokens_before_it(stage: int, delays: tuple[int, ...]) -> None:
    """Codebook k of frame t is at step t + delay_k, and is predicted from all earlier steps."""
    score = CausalRescorer(build_musicgen(pattern=DelayedPatternProvider(K, list(delays)))).scorer(conditions(*TEXTS), 2)
    tokens = tokens_of()
    before = score(tokens, stage)
    for k in range(K):
        for t in range(T):
            changed = tokens.clone()
            changed[0, k, t] = (changed[0, k, t] + 1) % CARD
            differs = (score(changed, stage) - before).abs().amax(dim=-1) > 1e-7          # [B, T]
            expected = torch.tensor([t + delays[k] < u + delays[stage] for u in range(T)])
            assert torch.equal(differs[0], expected), (k, t)
            assert not differs[1].any(), (k, t)


def slow_scores(lm: tp.Any, tokens: torch.Tensor, stage: int, texts: tuple[tp.Optional[str], ...],
                steps: tp.Callable[[int, int], int], cfg_coef: float = 1.0) -> torch.Tensor:
    """Teacher forcing by its definition: extend the sequence by one step at a time; the last output predicts the next step.

    `steps(k, t)` is the step of codebook k of frame t. Step 0 holds special tokens.
    """
    batch, _, length = tokens.shape
    last = max(steps(k, t) for k in range(K) for t in range(length))
    sequence = torch.full((batch, K, last + 1), CARD)
    for k in range(K):
        for t in range(length):
            sequence[:, k, steps(k, t)] = tokens[:, k, t]
    out = torch.zeros(batch, length, CARD)
    nothing = (None,) * batch

    def logits(texts: tuple[tp.Optional[str], ...], end: int) -> torch.Tensor:
        provider = lm.condition_provider
        with torch.no_grad():                   # Each text by itself: padding would change the results.
            return torch.cat([lm(one[None, :, :end], [], provider(provider.tokenize(conditions(text))))[:, stage, -1]
                              for one, text in zip(sequence, texts, strict=True)])

    for t in range(length):
        end = steps(stage, t)                   # the steps before it are what is known
        value = logits(texts, end)
        if cfg_coef != 1:
            unconditional = logits(nothing, end)
            value = unconditional + cfg_coef * (value - unconditional)
        out[:, t] = value.softmax(dim=-1)
    return out


@pytest.mark.parametrize("stage", range(K))
def test_the_parallel_pass_equals_teacher_forcing_step_by_step(stage: int) -> None:
    lm = build_musicgen()
    for cfg_coef in (1.0, 2.5):
        tokens = candidate(stage)
        fast = CausalRescorer(lm).scorer(conditions(*TEXTS), 2, cfg_coef)(tokens, stage)
        assert fast.isfinite().all() and torch.allclose(fast.sum(dim=-1), torch.ones(2, T), atol=1e-5)
        slow = slow_scores(lm, tokens, stage, TEXTS, lambda k, t: 1 + k + t, cfg_coef)
        assert torch.allclose(fast, slow, atol=1e-5), (fast - slow).abs().max()
        assert slow.std() > 0.01, "scores that hardly vary prove nothing"


@pytest.mark.parametrize("pattern,steps", [
    (DelayedPatternProvider(K, empty_initial=2), lambda k, t: 3 + k + t),
    (ParallelPatternProvider(K), lambda k, t: 1 + t),
    (UnrolledPatternProvider(K), lambda k, t: 1 + K * t + k),
], ids=["empty_initial", "parallel", "unrolled"])
def test_other_codebook_patterns_are_supported(pattern: tp.Any, steps: tp.Callable[[int, int], int]) -> None:
    lm = build_musicgen(pattern=pattern)
    for stage in (0, 2, 3):
        fast = CausalRescorer(lm).scorer(conditions(*TEXTS), 2)(candidate(stage), stage)
        assert torch.allclose(fast, slow_scores(lm, candidate(stage), stage, TEXTS, steps), atol=1e-5), stage


@pytest.mark.parametrize("provider", [
    DelayedPatternProvider(K), DelayedPatternProvider(K, [0, 0, 2, 4]), DelayedPatternProvider(K, empty_initial=2),
    DelayedPatternProvider(K, flatten_first=2), ParallelPatternProvider(K), UnrolledPatternProvider(K)],
    ids=["delays", "other delays", "empty_initial", "flatten_first", "parallel", "unrolled"])
@pytest.mark.parametrize("conditioned", [True, False])
def test_scores_of_the_fast_path_equal_those_of_the_model_itself(provider: tp.Any, conditioned: bool) -> None:
    lm = build_musicgen(pattern=provider, conditioned=conditioned)
    for cfg_coef in (1.0, 2.5):
        for texts in (conditions(*TEXTS), conditions("a reel", None), []):
            fast, plain = (CausalRescorer(lm, engine=engine).scorer(texts, 2, cfg_coef) for engine in ("auto", "plain"))
            for stage in range(K):
                for length in (T, T + 3):
                    tokens = candidate(stage, length=length)
                    difference = (fast(tokens, stage) - plain(tokens, stage)).abs().max()
                    assert difference < 1e-4, (difference, stage, length, cfg_coef)


def test_the_fast_path_only_computes_the_head_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    for make, lm, source in ((CausalRescorer, build_musicgen(), CausalSource), (MaskedRescorer, magnet(), lambda lm: None)):
        score = make(lm).scorer(conditions(*TEXTS), 2)
        monkeypatch.setattr(lm, "forward", lambda *args, **kwargs: pytest.fail("the model's own forward pass runs"))
        heads = engine_for(lm, "model", torch.float32, source(lm)).heads
        for k in (0, 1, 3):
            heads[k] = lambda x: pytest.fail("the head of another codebook runs")
        assert score(candidate(2), 2).shape == (2, T, CARD)


def test_models_that_the_fast_path_does_not_support_use_their_own_forward_pass() -> None:
    lm = build_musicgen(positional_embedding="rope")
    fast, plain = (CausalRescorer(lm, engine=engine).scorer(conditions(*TEXTS), 2) for engine in ("lean", "plain"))
    assert torch.equal(fast(candidate(1), 1), plain(candidate(1), 1))


def test_scores_equal_those_of_streaming_one_step_at_a_time() -> None:
    """Streaming with a KV cache is how MusicGen generates."""
    lm, stage = build_musicgen(), 2
    tokens = candidate(stage)
    sequence = torch.full((2, K, T + K), CARD)
    for k in range(K):
        sequence[:, k, 1 + k:1 + k + T] = tokens[:, k]
    provider = lm.condition_provider
    texts = (TEXTS[0], TEXTS[0])                # Of one length: padding would change the results.
    tensors = provider(provider.tokenize(conditions(*texts)))
    with lm.streaming(), torch.no_grad():
        logits = torch.cat([lm(sequence[..., s:s + 1], [], tensors) for s in range(T + K - 1)], dim=2)
    slow = logits[:, stage, stage:stage + T].softmax(dim=-1)
    fast = CausalRescorer(lm).scorer(conditions(*texts), 2)(tokens, stage)
    assert torch.allclose(fast, slow, atol=1e-5)


@pytest.mark.parametrize("stage", range(K))
def test_greedy_filling_uses_the_most_likely_tokens_of_later_codebooks(stage: int) -> None:
    """From the next codebook upwards, unknown tokens are replaced one codebook after another."""
    lm = build_musicgen()
    tokens = candidate(stage)
    tokens[:, 3, 2:4] = 5                        # known from the start, as a prompt is
    fast = CausalRescorer(lm).scorer(conditions(*TEXTS), 2, fill="greedy")(tokens, stage)
    filled = tokens.clone()
    for above in range(stage + 1, K):
        best = slow_scores(lm, filled, above, TEXTS, lambda k, t: 1 + k + t).argmax(dim=-1)
        filled[:, above] = torch.where(tokens[:, above] == CARD, best, tokens[:, above])
    assert torch.allclose(fast, slow_scores(lm, filled, stage, TEXTS, lambda k, t: 1 + k + t), atol=1e-5)
    assert (filled[:, 3, 2:4] == 5).all()
    special = CausalRescorer(lm).scorer(conditions(*TEXTS), 2)(tokens, stage)
    assert torch.equal(special, fast) == (stage == K - 1)


def test_known_tokens_of_later_codebooks_affect_later_scores() -> None:
    score = CausalRescorer(build_musicgen()).scorer(conditions(*TEXTS), 2)
    tokens = candidate(1)
    known = tokens.clone()
    known[0, 2, 1] = 4                          # at step 1 + 2 + 1; codebook 1 of frame 3 is the first after it
    differs = (score(known, 1) - score(tokens, 1)).abs().amax(dim=-1) > 1e-7
    assert differs[0].tolist() == [False] * 3 + [True] * 4 and not differs[1].any()


def test_conditions_are_embedded_once_and_by_the_rescorers_own_conditioners() -> None:
    lm = build_musicgen()
    calls = []
    lm.condition_provider.register_forward_hook(lambda *args: calls.append(1))
    score = CausalRescorer(lm).scorer(conditions(*TEXTS), 2, cfg_coef=3.0)
    for stage in range(K):
        score(candidate(stage), stage)
    assert len(calls) == 3              # Both texts, and no text.
    other = CausalRescorer(lm).scorer(conditions("a new jig on the harp", TEXTS[1]), 2, cfg_coef=3.0)
    differs = (other(candidate(3), 3) - score(candidate(3), 3)).abs().amax(dim=(-1, -2)) > 1e-6
    assert differs.tolist() == [True, False] and len(calls) == 4


def test_scores_without_a_text_are_unconditional() -> None:
    """Whether there are no conditions or conditions without a text; guidance then has no effect."""
    lm = build_musicgen()
    tokens = candidate(0)
    plain = CausalRescorer(lm).scorer([], 2)(tokens, 0)
    assert torch.equal(plain, CausalRescorer(lm).scorer(conditions(None, None), 2, cfg_coef=4.0)(tokens, 0))
    bare = CausalRescorer(build_musicgen(conditioned=False))
    assert torch.equal(bare.scorer([], 2)(tokens, 0), bare.scorer(conditions(*TEXTS), 2)(tokens, 0))


def magnet(**changes: tp.Any) -> tp.Any:
    """Another MAGNeT, with the tests' vocabulary."""
    return scale_all_weights(build(MagnetLMModel, 40, seed=3, card=CARD, dim=64, **changes))


@pytest.mark.parametrize("stage", [0, 2])
def test_a_magnet_never_sees_the_span_it_scores(stage: int) -> None:
    lm, length, groups = magnet(), 26, 3
    score = MaskedRescorer(lm, groups=groups).scorer(conditions(*TEXTS), 2)
    tokens = candidate(stage, length=length)
    before = score(tokens, stage)
    group = [t // 3 % groups for t in range(length)]
    for t in (0, 4, 13, 25):
        changed = tokens.clone()
        changed[1, stage, t] = (changed[1, stage, t] + 1) % CARD
        differs = ((score(changed, stage) - before).abs().amax(dim=-1) > 1e-8)
        assert not differs[0].any()
        reach = [stage == 0 or abs(u - t) <= 2 * 5 for u in range(length)]        # two layers of five frames
        expected = [group[u] != group[t] and reach[u] for u in range(length)]
        assert differs[1].tolist() == expected, t


def test_a_magnets_scores_are_those_of_its_own_masked_prediction() -> None:
    lm, stage = magnet(), 1
    tokens = candidate(stage, length=20)
    scores = MaskedRescorer(lm, groups=4).scorer(conditions(*TEXTS), 2, cfg_coef=2.0)(tokens, stage)
    predict = predictor(lm, conditions(*TEXTS), 2, GenerationOptions(engine="plain"))
    for now in range(4):
        own = torch.tensor([t // 3 % 4 == now for t in range(20)])
        masked = tokens.clone()
        masked[:, stage, own] = CARD
        with torch.no_grad():
            expected = predict.logits(masked, stage, 2.0, torch.arange(20).expand(2, 20)).softmax(dim=-1)
        assert torch.allclose(scores[:, own], expected[:, own], atol=1e-5)


def test_the_adapter_follows_from_the_kind_of_model() -> None:
    assert isinstance(rescorer_of(magnet()), MaskedRescorer) and isinstance(rescorer_of(build_musicgen()), CausalRescorer)


def test_unsuitable_models_are_refused() -> None:
    lm = build_musicgen()
    with pytest.raises(ValueError, match="NAME is not autoregressive"):
        CausalRescorer(magnet(), "NAME")
    with pytest.raises(ValueError, match="not autoregressive"):
        CausalRescorer(build_musicgen(causal=False))
    with pytest.raises(ValueError, match="training mode"):
        CausalRescorer(build_musicgen().train())
    with pytest.raises(ValueError, match="training mode"):
        MaskedRescorer(magnet().train())
    with pytest.raises(ValueError, match="groups=1"):
        MaskedRescorer(magnet(), groups=1)
    with pytest.raises(ValueError, match="rescorer_fill='none'"):
        CausalRescorer(lm).scorer([], 1, fill="none")
    with pytest.raises(ValueError, match="rescorer_fill='greedy'.*set rescorer_fill='special'"):
        MaskedRescorer(magnet()).scorer([], 1, fill="greedy")
    with pytest.raises(ValueError, match="1 conditions .* 2 samples"):
        CausalRescorer(lm).scorer(conditions("a"), 2)
    genre = conditions("a")
    genre[0].text = {"genre": "folk"}
    with pytest.raises(ValueError, match="NAME is conditioned on description, but this generation gives genre"):
        CausalRescorer(lm, "NAME").scorer(genre, 1)
