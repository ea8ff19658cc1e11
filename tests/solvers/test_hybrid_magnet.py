"""A hybrid solver's loss."""
import typing as tp

import pytest
import torch
from torch.nn import functional as F

import magnet_plugin

from ..helpers.small_models import CARD, HybridMagnetLMModel, K, MagnetLMModel, conditions, lively

magnet_plugin.register()
from magnet_plugin.solvers.hybrid_magnet import HybridMagnetSolver  # noqa: E402
from magnet_plugin.solvers.magnet import SOLVERS, MagnetSolver  # noqa: E402

from .test_training_step import stub  # noqa: E402

T = 30


def losses(model: tp.Any, klass: type, stage: int, seed: int = 3, accumulate: int = 1, **hybrid: tp.Any) -> tp.Any:
    solver = stub(model, accumulate=accumulate)
    solver.cfg.hybrid = {"switch": [0.0, 1.0], "parallel": 0.0, **hybrid}
    tokens = torch.randint(0, CARD, (4, K, T), generator=torch.Generator().manual_seed(1))
    tensors = model.embed_conditions(conditions(*["reel"] * 4))
    run = klass.hybrid_loss if klass is HybridMagnetSolver else klass.loss
    return run(solver, tokens, torch.ones_like(tokens, dtype=torch.bool), tensors, stage,
               torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("stage", range(K))
def test_without_a_prefix_it_is_magnets_loss(stage: int) -> None:
    hybrid, plain = lively(HybridMagnetLMModel), lively(MagnetLMModel, seed=5)
    plain.load_state_dict(hybrid.state_dict())
    loss, written, masked = losses(hybrid, HybridMagnetSolver, stage, switch=[0.0, 0.0])
    expected = float(losses(plain, MagnetSolver, stage).detach())
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-4) == pytest.approx(float(masked), abs=1e-4)
    assert float(written) == 0
    all_parallel = losses(hybrid, HybridMagnetSolver, stage, parallel=1.0)
    assert float(all_parallel[1]) == 0, "no sample has a prefix"


def test_with_nothing_but_a_prefix_it_is_musicgens_loss_over_all_tokens() -> None:
    """One mean over the valid tokens of the delay pattern (MusicGen takes a mean per codebook first)."""
    model = lively(HybridMagnetLMModel)
    tokens = torch.randint(0, CARD, (4, K, T), generator=torch.Generator().manual_seed(1))
    output = model.compute_predictions(tokens, [], model.embed_conditions(conditions(*["reel"] * 4)))
    expected = float(F.cross_entropy(output.logits[output.mask], tokens[output.mask]).detach())
    loss, written, masked = losses(model, HybridMagnetSolver, 0, switch=[1.0, 1.0])
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-4) == pytest.approx(float(written), abs=1e-4)
    assert float(masked) == 0, "the first codebook has nothing left to mask"


def test_all_heads_learn_and_a_step_can_be_repeated() -> None:
    model = lively(HybridMagnetLMModel)
    one, two, other = (losses(model, HybridMagnetSolver, 2, seed=seed)[0] for seed in (3, 3, 4))
    assert float(one.detach()) == float(two.detach()) != float(other.detach())
    one.backward()
    assert all(float(head.weight.grad.abs().sum()) > 0 for head in model.linears)


def test_a_batch_in_parts_has_the_same_loss_and_gradient() -> None:
    found = []
    for parts in (1, 3):
        model = lively(HybridMagnetLMModel).train()
        loss, *reported = losses(model, HybridMagnetSolver, 2, accumulate=parts)
        loss.backward()
        found.append(([float(loss.detach()), *map(float, reported)],
                      {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (one, gradients), (many, others) = found
    assert many == pytest.approx(one, abs=1e-4) and gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert (gradient - others[name]).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7, name


def test_the_solver_is_registered_and_refuses_bad_settings_before_building() -> None:
    from ..conftest import compose
    assert SOLVERS["hybrid_magnet"] is HybridMagnetSolver
    for overrides, word in ((["hybrid.switch=[0.8,0.2]"], "hybrid.switch"), (["hybrid.parallel=2"], "hybrid.parallel"),
                            (["lm_model=transformer_lm"], "transformer_lm_hybrid_magnet")):
        with pytest.raises(ValueError, match=word):
            HybridMagnetSolver(compose("solver=magnet/hybrid", *overrides))
