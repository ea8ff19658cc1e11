"""An autoregressive model generates the first frames, with its own conditioners and from its own random numbers."""
import typing as tp
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import magnet_plugin
from tests.helpers.small_models import build, conditions
from tests.helpers.small_musicgens import build_musicgen

magnet_plugin.register()
from magnet_plugin.decoding.random_source import sample_seeds  # noqa: E402
from magnet_plugin.models.lm_magnet import MagnetLMModel  # noqa: E402
from magnet_plugin.models.prompt_models import PromptModel  # noqa: E402

K, CARD = 4, 16
TEXTS = ("a fast reel on the flute", "a slow waltz")


def prompt_model(**params: tp.Any) -> PromptModel:
    return PromptModel(build_musicgen(), "NAME", params)


def test_a_greedy_prompt_equals_a_loop_over_steps_without_a_cache() -> None:
    """The loop appends a step of the delay pattern with the most likely tokens."""
    lm = build_musicgen()
    length = 6
    sequence = torch.full((2, K, length + K), CARD)
    provider = lm.condition_provider
    conditional, unconditional = (provider(provider.tokenize(conditions(*texts))) for texts in (TEXTS, (None, None)))
    for step in range(1, length + K):
        with torch.no_grad():
            one, other = (lm(sequence[..., :step], [], tensors)[:, :, -1] for tensors in (conditional, unconditional))
        best = (other + 3.0 * (one - other)).argmax(dim=-1)                # the model's own guidance is 3
        for k in range(K):
            if 0 <= step - 1 - k < length:
                sequence[:, k, step] = best[:, k]
    expected = torch.stack([sequence[:, k, 1 + k:1 + k + length] for k in range(K)], dim=1)
    assert torch.equal(PromptModel(lm, params={"use_sampling": False}).generate(conditions(*TEXTS), 2, length), expected)


def test_a_seed_reproduces_the_prompt_and_keeps_torchs_state() -> None:
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


def test_threads_that_share_a_prompt_model_get_what_sequential_calls_get() -> None:
    one = prompt_model()

    def generate(seed: int) -> torch.Tensor:
        return one.generate(conditions(*TEXTS), 2, 20, seed=seed)

    expected = [generate(seed) for seed in range(4)]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(generate, range(4)))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_without_a_seed_torchs_random_state_is_used() -> None:
    one = prompt_model()
    torch.manual_seed(5)
    first, second = (one.generate(conditions(*TEXTS), 2, 9) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(one.generate(conditions(*TEXTS), 2, 9), first) and not torch.equal(first, second)


def test_a_prompt_is_continued() -> None:
    given = torch.randint(0, CARD, (2, K, 4), generator=torch.Generator().manual_seed(0))
    tokens = prompt_model().generate(conditions(*TEXTS), 2, 9, seed=1, prompt=given)
    assert tokens.shape == (2, K, 9) and torch.equal(tokens[..., :4], given)
    other = prompt_model().generate(conditions(*TEXTS), 2, 9, seed=1, prompt=(given + 1) % CARD)
    assert not torch.equal(tokens[..., 4:], other[..., 4:])


def test_prompts_without_a_text_are_unconditional_and_progress_is_reported() -> None:
    seen: list[tuple[int, int]] = []
    tokens = prompt_model().generate([], 3, 5, seed=1, callback=lambda *step: seen.append(step))
    steps = 5 + K - 1
    assert tokens.shape == (3, K, 5) and seen == [(i, 3 * steps) for i in range(1, 3 * steps + 1)]
    assert torch.equal(tokens, prompt_model().generate(conditions(None, None, None), 3, 5, seed=1))
    assert not torch.equal(tokens, prompt_model().generate(conditions("a", "b", "c"), 3, 5, seed=1))


def test_sampling_settings_reach_the_model() -> None:
    assert torch.equal(prompt_model(top_k=1).generate(conditions(*TEXTS), 2, 8, seed=1),
                       prompt_model(use_sampling=False).generate(conditions(*TEXTS), 2, 8, seed=2))
    assert not torch.equal(prompt_model(use_sampling=False, cfg_coef=1.0).generate(conditions(*TEXTS), 2, 8),
                           prompt_model(use_sampling=False).generate(conditions(*TEXTS), 2, 8))


def test_unsuitable_models_and_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="NAME is not autoregressive"):
        PromptModel(build(MagnetLMModel, 40), "NAME")
    with pytest.raises(ValueError, match="training mode"):
        PromptModel(build_musicgen().train())
    given = torch.zeros(1, K, 5, dtype=torch.long)
    with pytest.raises(ValueError, match="prompt has 5 frames.*raise prompt_duration"):
        prompt_model().generate(conditions("a"), 1, 5, prompt=given)
    with pytest.raises(ValueError, match="prompt_duration is only 0 frames"):
        prompt_model().generate(conditions("a"), 1, 0)
