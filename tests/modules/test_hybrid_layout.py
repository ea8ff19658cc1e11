"""The hybrid model's columns, attention, masks and loss, each compared with a loop."""
import random

import pytest
import torch

from magnet_plugin.modules.attention import attend
from magnet_plugin.modules.context import Band, Full
from magnet_plugin.modules.hybrid_layout import Layout
from magnet_plugin.modules.hybrid_targets import choose_targets, draw_switch, hybrid_loss, prompt_loss
from magnet_plugin.modules.masking import corrupt, stage_mask

SPECIAL = 99


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(batch: int, K: int, T: int) -> torch.Tensor:
    """Tokens that encode their place: 1000 + 100 * codebook + frame."""
    tokens = 1000 + 100 * torch.arange(K)[:, None] + torch.arange(T)
    return tokens.expand(batch, K, T).clone()


def slow_columns(n: int, T: int, K: int) -> list[tuple[str, list[tuple[int, int]], int]]:
    """Kind, tokens (codebook, frame) and position of every column, from the table in `modules/hybrid_layout.py`."""
    found = [("written", [(k, j - 1 - k) for k in range(K) if 0 <= j - 1 - k < T], j) for j in range(n)]
    found += [("frame", [(k, t) for k in range(K)], t) for t in range(max(0, n - K), T)]
    return found + [("empty", [], -1)] * (T + K - len(found))


def slow_allowed(columns: list, row: int, column: int, stage: int, width: int) -> bool:
    kind, _, position = columns[row]
    other, tokens, _ = columns[column]
    if kind == "empty" or other == "empty":
        return row == column
    if kind == "written":
        return column <= row
    if stage == 0 or width < 0:
        return True
    return any(abs(t - position) <= width for _, t in tokens)


CASES = [(n, T, K) for T, K in ((12, 4), (9, 3), (3, 4), (6, 1)) for n in range(T + K)]


@pytest.mark.parametrize("n,T,K", CASES)
def test_columns_positions_and_attention_equal_the_documented_table(n: int, T: int, K: int) -> None:
    columns = slow_columns(n, T, K)
    layout = Layout.of(torch.tensor([n, 0]), T, K)
    placed = layout.place(numbered(2, K, T), SPECIAL)
    for j, (kind, tokens, position) in enumerate(columns):
        expected = [SPECIAL] * K
        for k, t in tokens:
            expected[k] = 1000 + 100 * k + t
        assert placed[0, :, j].tolist() == expected, (j, kind)
        assert position == -1 or layout.positions[0, j] == position
    for stage, width in ((0, 2), (1, 2), (K - 1, 0), (K - 1, -1), (2, 50)):
        if stage >= K:
            continue
        allowed = layout.context(stage, width).dense(T + K, T + K)
        assert allowed.shape == (2, 1, T + K, T + K)
        expected_mask = [[slow_allowed(columns, r, c, stage, width) for c in range(T + K)] for r in range(T + K)]
        assert allowed[0, 0].tolist() == expected_mask, (stage, width)
        assert allowed.any(-1).all(), "every query has a key"
    single = Layout.single(n, 1, T, K)
    assert single.columns == len([c for c in columns if c[0] != "empty"])
    assert torch.equal(single.place(numbered(1, K, T), SPECIAL)[0], placed[0, :, :single.columns])
    used = single.columns
    assert torch.equal(single.context(1, 2).allowed[0, 0], layout.context(1, 2).allowed[0, 0, :used, :used])


@pytest.mark.parametrize("n,T,K", CASES)
def test_each_token_is_predicted_from_a_column_that_may_not_see_it(n: int, T: int, K: int) -> None:
    columns = slow_columns(n, T, K)
    layout = Layout.of(torch.tensor([n]), T, K)
    labels = (torch.arange(K)[:, None] * 1000.0 + torch.arange(T + K))[None, ..., None]       # head and column
    got = layout.realign(labels)[0, ..., 0]
    frame_columns = layout.realign(torch.arange(T + K).float()[None, :, None])[0, :, 0]
    for k in range(K):
        for t in range(T):
            assert layout.prefix[0, k, t] == (k + t < n)
            head, column = divmod(int(got[k, t]), 1000)
            assert head == k
            if k + t < n:
                assert columns[column][0] == "written"
                seen = {token for c in columns[:column + 1] for token in c[1]}
                assert (k, t) not in seen and all(a + b < k + t for a, b in seen)
            else:
                assert columns[column][0] == "frame" and columns[column][2] == t
                assert frame_columns[t] == column


def test_the_layout_of_switch_zero_is_magnets_and_that_of_switch_t_is_musicgens() -> None:
    T, K = 20, 4
    plain = Layout.single(0, 1, T, K)
    assert plain.columns == T and torch.equal(plain.positions[0], torch.arange(T))
    for stage, context in ((0, Full()), (1, Band(5)), (3, Band(5))):
        assert torch.equal(plain.context(stage, 5).dense(T, T)[0, 0], context.dense(T, T))
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider
    pattern = DelayedPatternProvider(K, list(range(K))).get_pattern(T)
    tokens = numbered(1, K, T)
    for n, valid_only in ((T, True), (T + K - 1, False)):
        sequence, _, _ = pattern.build_pattern_sequence(tokens, SPECIAL, keep_only_valid_steps=valid_only)
        layout = Layout.single(n, 1, T, K)
        assert torch.equal(layout.place(tokens, SPECIAL)[..., :n], sequence[..., :n])
        assert torch.equal(layout.positions[0, :n], torch.arange(n))
        causal = torch.ones(n, n, dtype=torch.bool).tril()
        assert torch.equal(layout.context(2, 5).allowed[0, 0, :n, :n], causal)
        assert not layout.context(2, 5).allowed[0, 0, :n, n:].any()


def test_the_gradient_of_attention_is_nonzero_exactly_inside_the_mask() -> None:
    """For every query of a batch with different switches; outside of the mask, the gradient is exactly zero."""
    T, K = 14, 4
    switch = torch.tensor([0, 1, 3, 7, 14, 17])
    layout = Layout.of(switch, T, K)
    for stage in (0, 2):
        context = layout.context(stage, 2)
        q, k, v = (torch.randn(len(switch), 2, T + K, 8, generator=seeded(i), requires_grad=True) for i in range(3))
        out = attend(q, k, v, context)
        for row in range(T + K):
            grads = torch.autograd.grad(out[:, :, row].square().sum(), (k, v), retain_graph=True)
            allowed = context.allowed[:, 0, row]                                # [B, S]
            for grad in grads:
                reach = grad.abs().sum((1, 3))
                assert (reach[~allowed] == 0).all(), (stage, row)
            assert (grads[1].abs().sum((1, 3))[allowed] > 0).all(), (stage, row)


def test_a_context_for_fewer_queries_is_that_of_the_last_columns() -> None:
    context = Layout.single(5, 2, 12, 4).context(1, 2)
    assert torch.equal(context.dense(6, 16), context.allowed[:, :, 10:])
    with pytest.raises(ValueError, match="16 columns"):
        context.dense(3, 15)
    with pytest.raises(ValueError, match="0 to T \\+ K - 1 = 15"):
        Layout.single(16, 1, 12, 4)


def test_inputs_and_targets_equal_a_loop() -> None:
    draw = random.Random(0)
    for case in range(60):
        B, K, T = draw.randint(1, 4), draw.randint(1, 4), draw.randint(1, 24)
        stage, span = draw.randrange(K), draw.randint(1, 4)
        tokens = torch.randint(0, 90, (B, K, T), generator=seeded(case))
        switch = torch.tensor([draw.randint(0, T) for _ in range(B)])
        valid = torch.ones_like(tokens, dtype=torch.bool)
        for b in range(B):
            valid[b, :, draw.randint(0, T):] = False
        rates = torch.rand(B, generator=seeded(case))
        layout = Layout.of(switch, T, K)
        targets = choose_targets(tokens, valid, layout, stage, rates, span, SPECIAL, seeded(case))
        free = torch.tensor([[bool(valid[b, stage, t]) and t + stage >= switch[b] for t in range(T)] for b in range(B)])
        assert torch.equal(targets.mask, stage_mask(rates, T, span, seeded(case), free)), f"{case=}"
        assert torch.equal(targets.mask.any(-1), free.any(-1)), f"{case=}"
        for b in range(B):
            for k in range(K):
                for t in range(T):
                    known = k + t < switch[b]
                    hide = not known and (k > stage or (k == stage and targets.mask[b, t]))
                    assert targets.inputs[b, k, t] == (SPECIAL if hide else tokens[b, k, t]), f"{case=} {b=} {k=} {t=}"
                    assert targets.prompt[b, k, t] == (known and valid[b, k, t]), f"{case=}"
        # The loss is one mean over all targets.
        logits = torch.randn(B, K, T, 90, generator=seeded(case))
        targeted = [(b, k, t) for b in range(B) for k in range(K) for t in range(T)
                 if targets.prompt[b, k, t] or (k == stage and targets.mask[b, t])]
        terms = {where: -torch.log_softmax(logits[where].double(), -1)[tokens[where]] for where in targeted}
        loss, masked = hybrid_loss(logits, tokens, targets)
        written = prompt_loss(loss, masked, targets.counts)
        parts = [[value for (b, k, t), value in terms.items() if bool(targets.prompt[b, k, t]) == part]
                 for part in (True, False)]
        for got, values in ((loss, list(terms.values())), (written, parts[0]), (masked, parts[1])):
            expected = float(torch.stack(values).mean()) if values else 0.0
            assert float(got) == pytest.approx(expected, rel=1e-4, abs=1e-4), f"{case=}"
        half = [slice(0, B // 2), slice(B // 2, B)]
        shares = [hybrid_loss(logits[rows], tokens[rows], targets.rows(rows), targets.counts) for rows in half]
        for whole, parts_of in ((loss, [share[0] for share in shares]), (masked, [share[1] for share in shares])):
            assert float(sum(parts_of)) == pytest.approx(float(whole), abs=1e-5), "the losses of micro-batches add up"


def test_masks_and_inputs_of_switch_zero_are_magnets() -> None:
    tokens = torch.randint(0, 90, (3, 4, 30), generator=seeded(0))
    valid, rates = torch.ones_like(tokens, dtype=torch.bool), torch.tensor([0.2, 0.6, 1.0])
    for stage in range(4):
        layout = Layout.of(torch.zeros(3).long(), 30, 4)
        targets = choose_targets(tokens, valid, layout, stage, rates, 3, SPECIAL, seeded(stage))
        mask = stage_mask(rates, 30, 3, seeded(stage))
        assert torch.equal(targets.mask, mask) and not targets.prompt.any()
        assert torch.equal(targets.inputs, corrupt(tokens, stage, mask, SPECIAL))


def test_the_switch_is_distributed_uniformly_in_its_range() -> None:
    drawn = draw_switch(20000, 10, (0.2, 1.0), seeded(0))
    counts = torch.bincount(drawn, minlength=11)
    assert counts[:2].sum() == 0 and len(counts) == 11
    assert (counts[2:] - 20000 / 9).abs().max() < 5 * (20000 / 9) ** 0.5
    assert draw_switch(3, 10, (0.0, 1.0), seeded(1)).tolist() == draw_switch(3, 10, (0.0, 1.0), seeded(1)).tolist()
    generator = seeded(2)
    state = generator.get_state()
    assert draw_switch(2, 10, (0.3, 0.3), generator).tolist() == [3, 3]
    assert torch.equal(state, generator.get_state()), "a range of a single step uses no random numbers"
    some = draw_switch(20000, 10, (0.5, 1.0), seeded(3), parallel=0.25)
    assert abs((some == 0).float().mean() - 0.25) < 0.02 and not ((some > 0) & (some < 5)).any()
    with pytest.raises(ValueError, match="hybrid.parallel"):
        draw_switch(1, 10, (0.0, 1.0), seeded(0), parallel=1.5)
    for bad in ((0.5, 0.2), (-0.1, 1.0), (0.0, 1.1), (0.5,)):
        with pytest.raises(ValueError, match="hybrid.switch"):
            draw_switch(1, 10, bad, seeded(0))  # type: ignore[arg-type]
