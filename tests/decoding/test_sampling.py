"""Sampling from truncated distributions."""
import pytest
import torch

from magnet_plugin.decoding import sampling


def reference_distribution(probs: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """The truncated distribution, built token by token."""
    kept, mass = [], 0.0
    for token in probs.argsort(descending=True).tolist():
        if top_p and mass > top_p or not top_p and top_k and len(kept) == top_k:
            break
        kept.append(token)
        mass += float(probs[token])
    expected = torch.zeros_like(probs)
    expected[kept] = probs[kept]
    return expected / expected.sum()


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("by_noise", [True, False])
def test_tokens_follow_the_truncated_distribution(on_host: bool, by_noise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_on_host", lambda probs: on_host)
    draws, generator = 20_000, torch.Generator().manual_seed(3)
    cases = [(0, 0.0, 1.0), (0, 0.9, 1.0), (0, 0.3, 1.0), (0, 0.99, 3.0), (3, 0.0, 1.0), (3, 0.9, 0.3), (1, 0.0, 1.0),
             (0, 1e-6, 1.0), (0, 0.9, 30.0)]
    for case, (top_k, top_p, sharpness) in enumerate(cases):
        probs = torch.softmax(sharpness * torch.randn(3, 25, generator=generator), dim=-1)
        probs[2, :20] = 0                                           # tokens of probability 0 are never drawn
        probs = probs / probs.sum(-1, keepdim=True)
        many = probs.expand(draws, 3, 25)
        noise = sampling.exponential_noise(torch.rand(many.shape, generator=generator)) if by_noise else None
        tokens = sampling.draw(many, top_k, top_p, torch.rand(draws, 3, sampling.rounds(top_p), generator=generator), noise)
        assert tokens.shape == (draws, 3)
        for row in range(3):
            expected = reference_distribution(probs[row], top_k, top_p)
            counts = tokens[:, row].bincount(minlength=25)
            assert (counts[expected == 0] == 0).all(), case
            inside = expected > 0
            chi2 = ((counts - draws * expected)[inside].square() / (draws * expected[inside])).sum()
            few = int((draws * expected[inside] < 5).sum())     # too few for the chi-square approximation
            assert chi2 < 2.5 * (int(inside.sum()) + 6) + 40 * few, (case, row, float(chi2), int(inside.sum()))
