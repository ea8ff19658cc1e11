import math
import random

import pytest
import torch

from magnet_plugin.modules.losses import masked_cross_entropy


def slow_loss(logits, targets, mask):
    terms = []
    for where in mask.nonzero().tolist():
        row = logits[tuple(where)].double()
        terms.append(torch.logsumexp(row, 0) - row[targets[tuple(where)]])
    return torch.stack(terms).mean()


def test_the_loss_equals_a_loop_over_the_masked_positions():
    draw = random.Random(0)
    for case in range(30):
        torch.manual_seed(case)
        shape = (draw.randint(1, 3), draw.randint(1, 9)) if case % 2 else (2, draw.randint(1, 4), draw.randint(1, 9))
        logits = torch.randn(*shape, 7) * 3
        targets = torch.randint(7, shape)
        mask = torch.rand(shape) < draw.choice([0.2, 0.9])
        mask.view(-1)[0] = True
        targets[~mask] = 7  # the mask token, which has no logit
        loss = masked_cross_entropy(logits, targets, mask)
        expected = slow_loss(logits, targets, mask).item()
        assert loss.item() == pytest.approx(expected, rel=1e-5), f"{case=} {shape=}"


def test_only_masked_positions_get_a_gradient():
    logits = torch.randn(2, 10, 6, requires_grad=True)
    mask = torch.zeros(2, 10, dtype=torch.bool)
    mask[0, 3:6] = mask[1, 9] = True
    masked_cross_entropy(logits, torch.randint(6, (2, 10)), mask).backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, mask)


def test_non_finite_logits_outside_of_the_mask_have_no_effect():
    values = torch.randn(1, 4, 5)
    values[0, 2:] = torch.tensor([[math.nan], [math.inf]])
    logits = values.requires_grad_()
    mask = torch.tensor([[True, True, False, False]])
    loss = masked_cross_entropy(logits, torch.ones(1, 4, dtype=torch.long), mask)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_the_loss_of_an_empty_mask_is_zero_with_zero_gradients():
    logits = torch.randn(2, 5, 6, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.full((2, 5), 6), torch.zeros(2, 5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_softmax_is_computed_in_float32(dtype):
    torch.manual_seed(0)
    logits = (torch.randn(4, 50, 2048) * 4).to(dtype)
    targets, mask = torch.randint(2048, (4, 50)), torch.ones(4, 50, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = masked_cross_entropy(logits, targets, mask)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), slow_loss(logits, targets, mask), rtol=1e-5, atol=0)


def test_shapes_that_do_not_fit_are_refused():
    logits, targets = torch.zeros(2, 5, 6), torch.zeros(2, 5, dtype=torch.long)
    mask = torch.ones(2, 5, dtype=torch.bool)
    for bad in ((logits, targets[:, :4], mask), (logits, targets, mask[:1]), (logits[:, :4], targets, mask)):
        with pytest.raises(ValueError, match="targets and mask"):
            masked_cross_entropy(*bad)
