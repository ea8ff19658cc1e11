"""Loss, gradients and optimizer step of MagnetSolver, and the training step that it shares with the hybrid solver."""
import types
import typing as tp

import pytest
import torch
from omegaconf import open_dict
from torch.nn import functional as F

from magnet_plugin.solvers.settings import training_batch

from ..helpers.rank_group import BATCH, K, T, fixed_batch
from ..helpers.small_models import conditions


def random_tokens(batch: int) -> torch.Tensor:
    return torch.randint(512, (batch, K, T), generator=torch.Generator().manual_seed(1))


def loss_of(solver: tp.Any, tokens: torch.Tensor, stage: int, valid: tp.Optional[torch.Tensor] = None) -> torch.Tensor:
    valid = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
    texts = ["a reel", "a slow waltz", "a jig in D", None, "a polka"][:len(tokens)]
    embedded = solver.model.embed_conditions(conditions(*texts))
    loss, parts = solver.compute_loss(tokens, valid, embedded, stage, torch.Generator().manual_seed(3))
    assert list(parts) == [f"ce_q{stage + 1}"] and torch.equal(parts[f"ce_q{stage + 1}"], loss.detach())
    return loss


@pytest.fixture
def inputs(magnet_solver: tp.Any) -> tp.Iterator[list[torch.Tensor]]:
    """The inputs of each forward pass of the model."""
    seen: list[torch.Tensor] = []
    hook = magnet_solver.model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(args[0]), with_kwargs=True)
    yield seen
    hook.remove()


@pytest.mark.parametrize("stage", range(K))
def test_loss_is_the_cross_entropy_of_the_masked_tokens_of_a_stage(magnet_solver: tp.Any, inputs: list, stage: int) -> None:
    """Compared with a slow loop over positions, on the logits of all heads."""
    model, tokens = magnet_solver.model, random_tokens(3)
    loss = loss_of(magnet_solver, tokens, stage)
    hidden = inputs[0] == model.special_token_id
    assert hidden[:, stage + 1:].all() and not hidden[:, :stage].any()
    assert hidden[:, stage].any(dim=-1).all() and not hidden[:, stage].all()
    embedded = model.embed_conditions(conditions("a reel", "a slow waltz", "a jig in D"))
    logits = model(inputs[0], [], embedded, stage=stage)
    losses = [F.cross_entropy(logits[b, stage, t], tokens[b, stage, t])
              for b in range(3) for t in range(T) if hidden[b, stage, t]]
    assert float(loss.detach()) == pytest.approx(float(torch.stack(losses).mean().detach()), abs=1e-5)


def test_padding_is_never_a_target(magnet_solver: tp.Any, inputs: list) -> None:
    tokens, special = random_tokens(2), magnet_solver.model.special_token_id
    valid = torch.ones_like(tokens, dtype=torch.bool)
    valid[:, :, 20:] = False
    padded, full = (loss_of(magnet_solver, tokens, 1, mask) for mask in (valid, torch.ones_like(valid)))
    assert not (inputs[0][:, 1, 20:] == special).any() and (inputs[0][:, 1, :20] == special).any(dim=-1).all()
    assert (inputs[1][:, 1, 20:] == special).any()
    assert padded.isfinite() and padded != full


def test_other_heads_get_only_weight_decay(magnet_solver: tp.Any) -> None:
    heads = magnet_solver.model.linears
    before = [head.weight.detach().clone() for head in heads]
    metrics: dict = {}
    magnet_solver.optimize(loss_of(magnet_solver, random_tokens(2), 2), metrics)
    assert set(metrics) == {"lr", "grad_norm"} and metrics["lr"] == 1e-2
    decay = 1 - 1e-2 * magnet_solver.cfg.optim.adam.weight_decay
    assert decay < 1
    for stage, (head, old) in enumerate(zip(heads, before, strict=True)):
        if stage != 2:
            assert torch.allclose(head.weight, old * decay, atol=1e-7), stage
        else:
            assert (head.weight - old).abs().mean() > 5e-3


@pytest.mark.parametrize("autocast, dtype, remedy", [(False, "float16", ""), (True, "bfloat16", ", or set autocast=false"),
                                                     (True, "float16", ", or set autocast_dtype=bfloat16")])
def test_a_loss_that_is_not_finite_raises_before_the_optimizer_step(magnet_solver: tp.Any, monkeypatch: pytest.MonkeyPatch,
                                                                    autocast: bool, dtype: str, remedy: str) -> None:
    monkeypatch.setitem(magnet_solver.cfg, "autocast", autocast)
    monkeypatch.setitem(magnet_solver.cfg, "autocast_dtype", dtype)
    weights = [parameter.detach().clone() for parameter in magnet_solver.model.parameters()]
    with pytest.raises(FloatingPointError, match=rf"the loss is nan .* lower optim.lr \(now 0.01\){remedy}$"):
        magnet_solver.optimize(torch.tensor(float("nan"), requires_grad=True), {})
    assert all(torch.equal(a, b) for a, b in zip(weights, magnet_solver.model.parameters(), strict=True))


@pytest.mark.parametrize("micro_batches, scale", [(2, 1.0), (3, 64.0), (5, 64.0)])
def test_micro_batches_give_the_loss_and_gradient_of_the_batch(magnet_solver: tp.Any, micro_batches: int, scale: float
                                                               ) -> None:
    """Also for the conditioner, whose output all micro-batches share, and with a gradient scaler."""
    solver, tokens = magnet_solver, random_tokens(5)
    valid = torch.ones_like(tokens, dtype=torch.bool)
    valid[0, :, 12:] = False
    solver.scaler = types.SimpleNamespace(get_scale=lambda: scale, scale=lambda loss: loss * scale)
    found = []
    for solver.cfg.optim.accumulate in (1, micro_batches):
        solver.optimizer.zero_grad()
        loss = loss_of(solver, tokens, 1, valid)
        solver.scaler.scale(loss).backward()
        found.append((float(loss), {name: p.grad.clone() for name, p in solver.model.named_parameters()
                                    if p.grad is not None}))
    (one_loss, one), (many_loss, many) = found
    assert many_loss == pytest.approx(one_loss, rel=1e-6)
    assert one.keys() == many.keys() and any("condition_provider" in name for name in one)
    for name in one:
        assert (one[name] - many[name]).abs().max() <= 1e-4 * one[name].abs().max(), name


@pytest.mark.parametrize("kind", ("magnet_solver", "hybrid_solver"))
def test_a_training_step_updates_and_a_validation_step_does_not(request: pytest.FixtureRequest, kind: str) -> None:
    solver = request.getfixturevalue(kind)
    own = {"ce", "ppl", "ce_q1", "ppl_q1"} | ({"ce_prompt"} if kind == "hybrid_solver" else set())
    weights = [parameter.detach().clone() for parameter in solver.model.parameters()]
    solver._current_stage = "valid"
    metrics = solver.run_step(0, fixed_batch(0), {})
    assert set(metrics) == own, "validation starts with the first stage"
    assert metrics["ppl"] == metrics["ce"].exp() and metrics["ppl_q1"] == metrics["ce_q1"].exp()
    assert all(torch.equal(old, new) for old, new in zip(weights, solver.model.parameters(), strict=True))
    assert solver.run_step(0, fixed_batch(0), {}) == metrics, "validation draws the same masks each time"
    solver._current_stage = "train"
    stages = set()
    for step in range(8):
        metrics = solver.run_step(step, fixed_batch(step % 4), {})
        stages |= {name for name in metrics if name.startswith("ce_q")}
        assert {"lr", "grad_norm", "ce", "ppl"} <= set(metrics)
    assert len(stages) > 1, "training draws stages at random"
    pairs = zip(weights, solver.model.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in pairs if new.dim() > 1)


@pytest.mark.parametrize("accumulate", (0, BATCH + 1))
def test_micro_batches_without_a_clip_are_refused_before_anything_is_built(magnet_solver: tp.Any, accumulate: int) -> None:
    magnet_solver.cfg.optim.accumulate = accumulate
    with pytest.raises(ValueError, match=f"optim.accumulate={accumulate} must be between 1 and dataset.batch_size={BATCH}"):
        type(magnet_solver)(magnet_solver.cfg)


@pytest.mark.parametrize("cache, setting, clips", [
    (None, "dataset.train.batch_size", 7), ("tokens", "dataset.batch_size", 3)])
def test_micro_batches_are_counted_against_the_batch_size_of_training(magnet_solver: tp.Any, cache: tp.Optional[str],
                                                                      setting: str, clips: int) -> None:
    """Batches of cached tokens have `dataset.batch_size` clips, whatever that of the split is."""
    cfg = magnet_solver.cfg
    with open_dict(cfg):
        cfg.dataset.batch_size, cfg.dataset.train.batch_size, cfg.cache.path = 3, 7, cache
    assert training_batch(cfg) == (setting, clips)
    cfg.optim.accumulate = clips + 1
    with pytest.raises(ValueError, match=f"optim.accumulate={clips + 1} must be between 1 and {setting}={clips}, "):
        type(magnet_solver)(cfg)
