"""Autoregressive decoding of a clip's first frames; functions stand in for the model."""

import pytest
import torch

from magnet_plugin.decoding.autoregressive import decode_prompt, delay
from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.magnet import NonFiniteLogits
from magnet_plugin.decoding.options import PromptOptions
from magnet_plugin.decoding.random_source import RandomSource
from magnet_plugin.decoding.sampling import Sampler
from magnet_plugin.modules.hybrid_layout import Layout

from ..helpers.oracles import CARD, K, nothing_known

T = 22


class Diagonals:
    """Stands in for a model: the next token of codebook k is a function of all columns so far, which it stores."""

    def __init__(self) -> None:
        self.columns: list[torch.Tensor] = []

    def __call__(self, written: torch.Tensor, guidance: float) -> torch.Tensor:
        self.columns.append(written.clone())
        total = torch.stack(self.columns).sum(0) * torch.arange(1, len(self.columns) + 1).sum()
        return 50.0 * torch.nn.functional.one_hot((total + torch.arange(K)) % CARD, CARD).float()


def sampler(top_k: int = 250, batch: int = 1) -> Sampler:
    return Sampler(True, top_k, random=RandomSource.seeded(range(batch)))


@pytest.mark.parametrize("steps", [0, 1, 3, 10, T, T + K - 1])
def test_the_prompt_equals_a_loop_over_the_delay_pattern(steps: int) -> None:
    oracle = Diagonals()
    got = decode_prompt(oracle, nothing_known(2, T), steps, PromptOptions(), sampler(batch=2), special=CARD)
    replay = Diagonals()
    tokens = torch.full((2, K, T), CARD)
    for step in range(steps):
        before = torch.tensor([[int(tokens[b, k, step - 1 - k]) if 0 <= step - 1 - k < T else CARD for k in range(K)]
                               for b in range(2)])
        best = replay(before, 3.0).argmax(-1)
        for k in range(K):
            if 0 <= step - k < T:
                tokens[:, k, step - k] = best[:, k]
    known = torch.tensor([[k + t < steps for t in range(T)] for k in range(K)]).expand(2, K, T)
    assert torch.equal(got.known, known) and torch.equal(got.tokens[known], tokens[known])
    assert len(oracle.columns) == steps


def test_known_tokens_are_kept_and_given_to_the_model() -> None:
    generator = torch.Generator().manual_seed(1)
    known = torch.rand(2, K, T, generator=generator) < 0.3
    clip = KnownTokens(torch.randint(0, CARD, (2, K, T), generator=generator), known)
    oracle = Diagonals()
    got = decode_prompt(oracle, clip, 12, PromptOptions(), Sampler(False), special=CARD)
    assert torch.equal(got.tokens[known], clip.tokens[known])
    prefix = Layout.single(12, 2, T, K).prefix
    assert torch.equal(got.known, known | prefix)
    assert torch.equal(got.tokens[~got.known], clip.tokens[~got.known])
    for step in range(1, 12):
        assert torch.equal(oracle.columns[step], delay(got.tokens, CARD)[..., step])


def test_tokens_follow_temperature_and_top_k() -> None:
    def ramp(written: torch.Tensor, guidance: float) -> torch.Tensor:
        return torch.linspace(0, 3, CARD).expand(*written.shape, CARD)

    def drawn(temperature: float = 1.0, top_k: int = 0) -> torch.Tensor:
        return decode_prompt(ramp, nothing_known(64, T), 8, PromptOptions(temperature=temperature), sampler(top_k, 64),
                             special=CARD).tokens[:, 0, :8]

    assert drawn(top_k=3).min() == CARD - 3 and drawn().min() < 5
    assert drawn(temperature=0.001).min() == CARD - 1
    # Frequencies are those of the softmax.
    share = (drawn(top_k=2) == CARD - 1).float().mean()
    assert abs(float(share) - 1 / (1 + torch.exp(torch.tensor(-3 / (CARD - 1))))) < 0.08


def test_the_error_about_non_finite_logits_names_the_step() -> None:
    def broken(written: torch.Tensor, guidance: float) -> torch.Tensor:
        broken.calls += 1                                                              # type: ignore[attr-defined]
        return torch.full((1, K, CARD), float("nan") if broken.calls == 3 else 0.0)    # type: ignore[attr-defined]

    broken.calls = 0                                                                   # type: ignore[attr-defined]
    with pytest.raises(NonFiniteLogits, match="prompt step 2"):
        decode_prompt(broken, nothing_known(1, T), 5, PromptOptions(), sampler(), special=CARD)
    broken.calls = 0                                                                   # type: ignore[attr-defined]
    with pytest.raises(NonFiniteLogits, match="prompt step 3"):
        decode_prompt(broken, nothing_known(1, T), 5, PromptOptions(), sampler(), special=CARD, start=1)
