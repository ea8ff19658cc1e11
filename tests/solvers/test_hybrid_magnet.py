"""The loss of HybridMagnetSolver: MusicGen's before the switch, MAGNeT's after it."""
import typing as tp

import pytest
import torch
from torch.nn import functional as F

from magnet_plugin.modules.hybrid_targets import draw_switch
from magnet_plugin.solvers.hybrid_magnet import HybridMagnetSolver

from ..conftest import compose
from ..helpers.rank_group import BATCH, K, T
from ..helpers.small_models import conditions

TOKENS = torch.randint(512, (BATCH, K, T), generator=torch.Generator().manual_seed(1))


def losses(solver: tp.Any, stage: int, seed: int = 3, accumulate: int = 1, **hybrid: tp.Any
           ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    solver.cfg.optim.accumulate = accumulate
    if hybrid:
        solver.cfg.hybrid.update({"switch": [0.0, 1.0], "parallel": 0.0, **hybrid})
    embedded = solver.model.embed_conditions(conditions(*["reel"] * BATCH))
    valid = torch.ones_like(TOKENS, dtype=torch.bool)
    return solver.compute_loss(TOKENS, valid, embedded, stage, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("stage", range(K))
def test_the_loss_without_a_prompt_equals_magnets(magnet_solver: tp.Any, hybrid_solver: tp.Any, stage: int) -> None:
    magnet_solver.model.load_state_dict(hybrid_solver.model.state_dict())
    loss, parts = losses(hybrid_solver, stage, switch=[0.0, 0.0])
    expected = float(losses(magnet_solver, stage)[0].detach())
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-4)
    assert float(parts[f"ce_q{stage + 1}"]) == pytest.approx(expected, abs=1e-4)
    assert float(parts["ce_prompt"]) == 0
    assert float(losses(hybrid_solver, stage, parallel=1.0)[1]["ce_prompt"]) == 0, "no sample has a prompt"


def test_the_loss_of_a_fully_autoregressive_clip_equals_musicgens(hybrid_solver: tp.Any) -> None:
    """One mean over the valid tokens of the delay pattern (MusicGen averages per codebook first)."""
    model = hybrid_solver.model
    output = model.compute_predictions(TOKENS, [], model.embed_conditions(conditions(*["reel"] * BATCH)))
    expected = float(F.cross_entropy(output.logits[output.mask], TOKENS[output.mask]).detach())
    loss, parts = losses(hybrid_solver, 0, switch=[1.0, 1.0])
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-4) == pytest.approx(float(parts["ce_prompt"]), abs=1e-4)
    assert float(parts["ce_q1"]) == 0, "the first codebook has no targets after the switch"


def test_all_heads_get_gradients_and_the_seed_decides_the_loss(hybrid_solver: tp.Any) -> None:
    one, two, other = (losses(hybrid_solver, 2, seed=seed, parallel=0.0)[0] for seed in (3, 3, 4))
    assert float(one.detach()) == float(two.detach()) != float(other.detach())
    one.backward()
    assert all(float(head.weight.grad.abs().sum()) > 0 for head in hybrid_solver.model.linears)


def test_micro_batches_give_the_loss_and_gradient_of_the_batch(hybrid_solver: tp.Any) -> None:
    found = []
    for micro_batches in (1, 3):
        hybrid_solver.optimizer.zero_grad()
        loss, parts = losses(hybrid_solver, 2, accumulate=micro_batches, parallel=0.0)
        loss.backward()
        found.append(([float(loss.detach()), *map(float, parts.values())],
                      {name: p.grad.clone() for name, p in hybrid_solver.model.named_parameters() if p.grad is not None}))
    (one, gradients), (many, others) = found
    assert many == pytest.approx(one, abs=1e-4) and gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert (gradient - others[name]).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7, name


@pytest.mark.parametrize("solver", ("hybrid", "hybrid_32khz", "tiny_hybrid"))
def test_recipes_draw_the_switch_uniformly_as_the_paper_does(solver: str) -> None:
    hybrid = compose(f"solver=magnet/{solver}", *(["dset=audio/example"] if solver == "hybrid_32khz" else [])).hybrid
    drawn = draw_switch(11_000, 10, hybrid.switch, torch.Generator().manual_seed(0), hybrid.parallel)
    assert (torch.bincount(drawn, minlength=11) - 1000).abs().max() < 150


@pytest.mark.parametrize("override, words", [
    ("hybrid.switch=[0.8,0.2]", "hybrid.switch"), ("hybrid.parallel=2", "hybrid.parallel"),
    ("lm_model=transformer_lm", "set lm_model=transformer_lm_hybrid_magnet")])
def test_invalid_settings_are_refused_before_anything_is_built(override: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HybridMagnetSolver(compose("solver=magnet/hybrid", override))
