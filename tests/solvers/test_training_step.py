"""What a training step draws and what it does to gradients."""
import contextlib
import types

import pytest
import torch
from torch.nn import functional as F

import magnet_plugin
from magnet_plugin.distributed import reduction as training

from ..helpers.small_models import CARD, K, MagnetLMModel, build, conditions

magnet_plugin.register()
from magnet_plugin.solvers.magnet import MagnetSolver  # noqa: E402


def test_stage_is_shared_by_ranks_and_masks_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stages, masks = [], []
    for rank in range(3):
        monkeypatch.setattr(training.flashy.distrib, "rank", lambda rank=rank: rank)
        drawn = [training.draws(7, 2, step, K, "cpu") for step in range(40)]
        stages.append([stage for stage, _ in drawn])
        masks.append(torch.stack([torch.rand(4, generator=generator) for _, generator in drawn]))
    assert stages[0] == stages[1] == stages[2]
    assert set(stages[0]) == set(range(K))
    assert not torch.equal(masks[0], masks[1]) and not torch.equal(masks[1], masks[2])


def test_neighbouring_seeds_have_nothing_in_common() -> None:
    seeds = {training.mix(seed, epoch, step, rank) for seed in range(3) for epoch in range(3) for step in range(20)
             for rank in range(9)}
    assert len(seeds) == 3 * 3 * 20 * 9
    apart = [bin(training.mix(7, n) ^ training.mix(7, n + 1)).count("1") for n in range(200)]
    assert 28 < sum(apart) / len(apart) < 35 and min(apart) > 12, "half of the 63 bits"


def test_draws_can_be_repeated_and_validation_is_the_same_in_every_epoch() -> None:
    def sequence(seed: int, epoch: int | None) -> list[tuple[int, float]]:
        return [(stage, float(torch.rand((), generator=generator)))
                for stage, generator in (training.draws(seed, epoch, step, K, "cpu") for step in range(12))]

    assert sequence(1, 3) == sequence(1, 3)
    assert sequence(1, 3) != sequence(1, 4) and sequence(1, 3) != sequence(2, 3)
    assert [stage for stage, _ in sequence(1, None)] == [0, 1, 2, 3] * 3


def stub(model: MagnetLMModel, **optim: object) -> types.SimpleNamespace:
    """As much of a solver as a step needs, without Dora."""
    from omegaconf import OmegaConf
    cfg = OmegaConf.create({"seed": 0, "masking": {"span_len": 3}, "fsdp": {"use": False},
                            "optim": {"eager_sync": True, "max_norm": 1.0, "accumulate": 1, **optim}})
    stub = types.SimpleNamespace(
        model=model, cfg=cfg, scaler=None, lr_scheduler=None, epoch=1, is_training=True, _scaled=lambda loss: loss,
        autocast=contextlib.nullcontext(),
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1),
        deadlock_detect=types.SimpleNamespace(update=lambda name: None),
        _backward=lambda loss: loss.backward(), _clip=lambda norm: MagnetSolver._clip(solver, norm))
    stub.in_parts = types.MethodType(MagnetSolver.in_parts, stub)
    return stub


def stage_loss(model: MagnetLMModel, tokens: torch.Tensor, stage: int, valid: torch.Tensor | None = None) -> torch.Tensor:
    solver = stub(model)
    valid = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
    tensors = model.embed_conditions(conditions(*["reel"] * len(tokens)))
    return MagnetSolver.loss(solver, tokens, valid, tensors, stage, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("stage", range(K))
def test_loss_is_cross_entropy_of_the_masked_tokens_of_one_stage(stage: int) -> None:
    """Against a slow way: all heads, position after position."""
    model = build(MagnetLMModel, bias_proj=True)
    tokens = torch.randint(0, CARD, (3, K, 30), generator=torch.Generator().manual_seed(1))
    shown: list[torch.Tensor] = []
    hook = model.register_forward_pre_hook(lambda module, args, kwargs: shown.append(args[0]), with_kwargs=True)
    got = stage_loss(model, tokens, stage)
    hook.remove()
    hidden = shown[0] == CARD
    assert hidden[:, stage + 1:].all() and not hidden[:, :stage].any()
    assert hidden[:, stage].any(dim=-1).all() and not hidden[:, stage].all()
    logits = model(shown[0], [], model.embed_conditions(conditions(*["reel"] * 3)), stage=stage)
    losses = [F.cross_entropy(logits[b, stage, t], tokens[b, stage, t])
              for b in range(3) for t in range(30) if hidden[b, stage, t]]
    assert float(got.detach()) == pytest.approx(float(torch.stack(losses).mean().detach()), abs=1e-5)


def test_padding_is_never_a_target() -> None:
    model = build(MagnetLMModel)
    tokens = torch.randint(0, CARD, (2, K, 30), generator=torch.Generator().manual_seed(1))
    valid = torch.ones_like(tokens, dtype=torch.bool)
    valid[:, :, 20:] = False
    shown: list[torch.Tensor] = []
    hook = model.register_forward_pre_hook(lambda module, args, kwargs: shown.append(args[0]), with_kwargs=True)
    losses = [stage_loss(model, tokens, 1, mask) for mask in (valid, torch.ones_like(valid))]
    hook.remove()
    assert not (shown[0][:, 1, 20:] == CARD).any() and (shown[0][:, 1, :20] == CARD).any(dim=-1).all()
    assert (shown[1][:, 1, 20:] == CARD).any()
    assert losses[0].isfinite() and losses[0] != losses[1]


def test_unused_heads_get_zero_gradients_and_the_decay_of_adamw() -> None:
    model = build(MagnetLMModel).train()
    global solver
    solver = stub(model)
    before = [head.weight.detach().clone() for head in model.linears]
    tokens = torch.randint(0, CARD, (2, K, 30), generator=torch.Generator().manual_seed(1))
    loss = stage_loss(model, tokens, 2)
    touched = training.touch_all(loss, model.linears.parameters())
    touched.backward()
    assert float(touched) == float(loss)
    for stage, head in enumerate(model.linears):
        assert head.weight.grad is not None
        assert bool((head.weight.grad == 0).all()) == (stage != 2), stage
    solver.optimizer.zero_grad()
    metrics: dict = {}
    MagnetSolver.optimise(solver, stage_loss(model, tokens, 2), metrics)
    assert set(metrics) == {"lr", "grad_norm"} and metrics["lr"] == 1e-2
    for stage, (head, old) in enumerate(zip(model.linears, before, strict=True)):
        if stage != 2:                                 # weight decay alone
            assert torch.allclose(head.weight, old * (1 - 1e-2 * 0.1), atol=1e-7), stage
        else:
            assert (head.weight - old).abs().mean() > 5e-3


def test_a_loss_that_is_not_finite_stops_the_run_before_the_step() -> None:
    model = build(MagnetLMModel)
    global solver
    solver = stub(model)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(FloatingPointError, match="optim.lr"):
        MagnetSolver.optimise(solver, torch.tensor(float("nan"), requires_grad=True), {})
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("scale", [1.0, 64.0])
def test_a_batch_in_parts_has_the_same_loss_and_gradient(parts: int, scale: float) -> None:
    """Also the conditioner's, which all parts share."""
    tokens = torch.randint(0, CARD, (5, K, 30), generator=torch.Generator().manual_seed(1))
    valid = torch.ones_like(tokens, dtype=torch.bool)
    valid[0, :, 12:] = False
    found = []
    for accumulate in (1, parts):
        model = build(MagnetLMModel).train()
        solver = stub(model, accumulate=accumulate)
        solver.scaler = types.SimpleNamespace(get_scale=lambda: scale)
        solver._scaled = lambda loss: loss * scale
        tensors = model.embed_conditions(conditions("reel", "slow waltz", "jig in D", None, "polka"))
        loss = MagnetSolver.loss(solver, tokens, valid, tensors, 1, torch.Generator().manual_seed(3))
        solver._scaled(loss).backward()
        found.append((float(loss), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (one_loss, one), (many_loss, many) = found
    assert many_loss == pytest.approx(one_loss, rel=1e-6)
    assert one.keys() == many.keys() and any("condition_provider" in name for name in one)
    for name in one:
        assert (one[name] - many[name]).abs().max() <= 1e-4 * one[name].abs().max(), name
