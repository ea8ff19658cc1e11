"""An autoregressive model generates the first frames, with its own conditioners and from its own random numbers."""
import typing as tp
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import magnet_plugin
from tests.helpers.small_models import build, conditions
from tests.helpers.small_musicgens import build_musicgen

magnet_plugin.register()
from audiocraft.modules.codebooks_patterns import ParallelPatternProvider  # noqa: E402

from magnet_plugin.decoding.random_source import sample_seeds  # noqa: E402
from magnet_plugin.engine.engines import engine_for  # noqa: E402
from magnet_plugin.models.causal import CausalSource  # noqa: E402
from magnet_plugin.models.lm_magnet import MagnetLMModel  # noqa: E402
from magnet_plugin.models.prompt_models import PromptModel  # noqa: E402

K, CARD = 4, 16
TEXTS = ("a fast reel on the flute", "a slow waltz")


class Generates(tp.Protocol):
    def __call__(self, **params: tp.Any) -> PromptModel: ...


@pytest.fixture(params=["auto", "plain"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def prompt_model(engine: str) -> Generates:
    """Builds a prompt model with these parameters, on the fast path or AudioCraft's own."""
    return lambda **params: PromptModel(build_musicgen(), "NAME", params, engine)


def test_a_greedy_prompt_equals_a_loop_over_steps_without_a_cache(engine: str) -> None:
    """The loop appends a step of the delay pattern with the most likely tokens, for one text at a time."""
    lm = build_musicgen()
    length, expected = 6, []
    provider = lm.condition_provider
    for text in TEXTS:
        sequence = torch.full((1, K, length + K), CARD)
        conditional, unconditional = (provider(provider.tokenize(conditions(one))) for one in (text, None))
        for step in range(1, length + K):
            with torch.no_grad():
                one, other = (lm(sequence[..., :step], [], tensors)[:, :, -1] for tensors in (conditional, unconditional))
            best = (other + 3.0 * (one - other)).argmax(dim=-1)            # the model's own guidance is 3
            for k in range(K):
                if 0 <= step - 1 - k < length:
                    sequence[:, k, step] = best[:, k]
        expected.append(torch.stack([sequence[:, k, 1 + k:1 + k + length] for k in range(K)], dim=1))
    found = PromptModel(lm, "NAME", {"use_sampling": False}, engine).generate(conditions(*TEXTS), 2, length, seed=1)
    assert torch.equal(found, torch.cat(expected))


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("params", [{}, {"cfg_coef": 1.0}, {"cfg_coef": 2.5, "two_step_cfg": False}, {"temp": 0.0}], ids=str)
def test_greedy_tokens_equal_those_of_audiocrafts_generate(params: dict[str, tp.Any], static: bool) -> None:
    """Texts have one length, because AudioCraft attends to padding."""
    texts = conditions("a fast reel", "slow waltz please")
    for lm in (build_musicgen(), build_musicgen(layer_scale=0.5, bias_attn=True, bias_ff=True), build_musicgen(n_q=1)):
        greedy = PromptModel(lm, "NAME", params if "temp" in params else {"use_sampling": False, **params})
        given = torch.randint(0, CARD, (2, lm.n_q, 4), generator=torch.Generator().manual_seed(0))
        engine_for(lm, "model", torch.float32, CausalSource(lm)).static = static
        for prompt in (None, given):
            expected = lm.generate(prompt, texts, num_samples=2, max_gen_len=14, **greedy.params)
            found = greedy.generate(texts, 2, 14, prompt=prompt)
            assert torch.equal(found, expected) and len(found.unique()) > 2


@pytest.mark.parametrize("params", [{"temp": 1.5, "top_k": 4}, {"top_k": 0, "temp": 2.0},
                                    {"top_p": 0.8, "top_k": 1, "temp": 5.0}], ids=str)
def test_sampled_tokens_have_the_distribution_of_audiocrafts(params: dict[str, tp.Any]) -> None:
    """Compared by the frequencies of the first two tokens of the first codebook."""
    lm, batch = build_musicgen(), 3000
    texts = conditions(*["a fast reel"] * batch)
    torch.manual_seed(0)
    fast, theirs = (PromptModel(lm, "NAME", params, engine).generate(texts, batch, 2)[:, 0] for engine in ("auto", "plain"))

    def frequencies(tokens: torch.Tensor) -> torch.Tensor:
        return (tokens[:, 0] * CARD + tokens[:, 1]).bincount(minlength=CARD ** 2) / batch

    distance = (frequencies(fast) - frequencies(theirs)).abs().sum() / 2
    assert len(theirs.unique(dim=0)) > 8 and distance < 0.08, (len(theirs.unique(dim=0)), distance)


def test_audiocrafts_generate_is_only_used_where_the_fast_path_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pattern of codebooks, an unsupported layer, unknown parameters, or if it is requested."""
    for changes, params, engine, used in (
            ({}, {}, "auto", False), ({}, {"two_step_cfg": True, "cfg_coef_beta": None}, "lean", False),
            ({}, {}, "plain", True), ({}, {"remove_prompts": False}, "auto", True), ({"past_context": 4}, {}, "auto", True),
            ({"pattern": ParallelPatternProvider(K)}, {}, "auto", True),
            ({"positional_embedding": "rope"}, {}, "lean", True)):
        lm, calls = build_musicgen(**changes), []
        own = lm.generate
        monkeypatch.setattr(lm, "generate",
                            lambda *args, own=own, calls=calls, **kwargs: calls.append(1) or own(*args, **kwargs))
        tokens = PromptModel(lm, "NAME", params, engine).generate(conditions("a reel"), 1, 6, seed=1)
        assert bool(calls) == used and tokens.shape == (1, K, 6) and tokens.max() < CARD, (changes, params, engine)


def test_a_seed_reproduces_the_prompt_and_keeps_torchs_state(prompt_model: Generates) -> None:
    one = prompt_model()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    first = one.generate(conditions(*TEXTS), 2, 9, seed=1)
    assert torch.equal(torch.get_rng_state(), state), "the global random state was used"
    torch.manual_seed(456)
    assert torch.equal(one.generate(conditions(*TEXTS), 2, 9, seed=1), first)
    seeds = sample_seeds(1, 2)
    assert seeds is not None and torch.equal(one.generate(conditions(TEXTS[1]), 1, 9, seed=seeds[1]), first[1:])
    assert not torch.equal(one.generate(conditions(*TEXTS), 2, 9, seed=2), first)
    assert first.shape == (2, K, 9) and first.min() >= 0 and first.max() < CARD


def test_threads_that_share_a_prompt_model_get_what_sequential_calls_get(prompt_model: Generates) -> None:
    one = prompt_model()

    def generate(seed: int) -> torch.Tensor:
        return one.generate(conditions(*TEXTS), 2, 20, seed=seed)

    expected = [generate(seed) for seed in range(4)]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(generate, range(4)))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_without_a_seed_torchs_random_state_is_used(prompt_model: Generates) -> None:
    one = prompt_model()
    torch.manual_seed(5)
    first, second = (one.generate(conditions(*TEXTS), 2, 9) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(one.generate(conditions(*TEXTS), 2, 9), first) and not torch.equal(first, second)


def test_a_prompt_is_continued(prompt_model: Generates) -> None:
    given = torch.randint(0, CARD, (2, K, 4), generator=torch.Generator().manual_seed(0))
    tokens = prompt_model().generate(conditions(*TEXTS), 2, 9, seed=1, prompt=given)
    assert tokens.shape == (2, K, 9) and torch.equal(tokens[..., :4], given)
    other = prompt_model().generate(conditions(*TEXTS), 2, 9, seed=1, prompt=(given + 1) % CARD)
    assert not torch.equal(tokens[..., 4:], other[..., 4:])


def test_prompts_without_a_text_are_unconditional_and_progress_is_reported(prompt_model: Generates, engine: str) -> None:
    seen: list[tuple[int, int]] = []
    tokens = prompt_model().generate([], 3, 5, seed=1, callback=lambda *step: seen.append(step))
    steps = (5 + K - 1) * (3 if engine == "plain" else 1)                      # AudioCraft generates one by one.
    assert tokens.shape == (3, K, 5) and seen == [(i, steps) for i in range(1, steps + 1)]
    assert torch.equal(tokens, prompt_model().generate(conditions(None, None, None), 3, 5, seed=1))
    assert not torch.equal(tokens, prompt_model().generate(conditions("a", "b", "c"), 3, 5, seed=1))


def test_sampling_settings_reach_the_model(prompt_model: Generates) -> None:
    assert torch.equal(prompt_model(top_k=1).generate(conditions(*TEXTS), 2, 8, seed=1),
                       prompt_model(use_sampling=False).generate(conditions(*TEXTS), 2, 8, seed=2))
    assert not torch.equal(prompt_model(use_sampling=False, cfg_coef=1.0).generate(conditions(*TEXTS), 2, 8),
                           prompt_model(use_sampling=False).generate(conditions(*TEXTS), 2, 8))


def test_unsuitable_models_and_prompts_are_refused(prompt_model: Generates) -> None:
    with pytest.raises(ValueError, match="NAME is not autoregressive"):
        PromptModel(build(MagnetLMModel, 40), "NAME")
    with pytest.raises(ValueError, match="training mode"):
        PromptModel(build_musicgen().train())
    given = torch.zeros(1, K, 5, dtype=torch.long)
    with pytest.raises(ValueError, match="prompt has 5 frames.*raise prompt_duration"):
        prompt_model().generate(conditions("a"), 1, 5, prompt=given)
    with pytest.raises(ValueError, match="prompt_duration is only 0 frames"):
        prompt_model().generate(conditions("a"), 1, 0)
