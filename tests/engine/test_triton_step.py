"""Decoding steps as Triton kernels: equal to those of PyTorch. On CPU tensors they run in Triton's interpreter."""
import contextlib
import dataclasses
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.sampling import Sampler, rounds
from magnet_plugin.decoding.span_masker import SpanRule
from magnet_plugin.engine import step, triton_step
from magnet_plugin.engine.step import StageState, StepTables

from ..helpers.triton_kernels import compiled, interpreted, recorded

STEPS, MASK = 3, 4096
SPILLED = 16        # Bytes per thread; sm_80 spills one register of `fill` at 4096 tokens.


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> tp.Iterator[str]:
    with interpreted() if request.param == "cpu" else contextlib.nullcontext():
        yield request.param


def buffers(seed: int, batch: int, length: int, card: int, device: str = "cpu", count: tp.Optional[int] = None,
            random_numbers: int = 2) -> tuple[torch.Tensor, StageState, StepTables]:
    """A clip of three codebooks, the second of which is being decoded, and tables at step 1 of 3."""
    generator = torch.Generator().manual_seed(seed)
    masked = torch.rand(batch, length, generator=generator) < 0.6
    known = torch.rand(batch, length, generator=generator) < 0.2
    clip = torch.randint(card, (batch, 3, length), generator=generator)
    counts = torch.randint(1, length + 1, (STEPS, batch), generator=generator)
    if count is not None:
        counts[1] = count
    settings = torch.tensor([[9.0, 9.0], [1.7, 3.0], [0.8, 2.5]])
    uniforms = torch.rand(STEPS, batch, length, random_numbers, generator=generator)
    likelihood = torch.rand(batch, length, generator=generator)
    clip, known, masked, likelihood, counts, settings, uniforms = (
        x.to(device) for x in (clip, known, masked & ~known, likelihood, counts, settings, uniforms))
    return (clip, StageState(clip[:, 1], known, masked, likelihood),
            StepTables(counts, settings, uniforms, torch.tensor([1], device=device), torch.tensor([STEPS], device=device)))


def copy(clip: torch.Tensor, state: StageState, tables: StepTables) -> tuple[torch.Tensor, StageState, StepTables]:
    clip = clip.clone()
    return (clip, StageState(clip[:, 1], state.known.clone(), state.masked.clone(), state.likelihood.clone()),
            dataclasses.replace(tables, index=tables.index.clone(), first_bad=tables.first_bad.clone()))


def assert_same(first: tuple[torch.Tensor, StageState, StepTables], second: tuple[torch.Tensor, StageState, StepTables],
                case: tp.Any) -> None:
    assert torch.equal(first[0], second[0]), case
    assert torch.equal(first[1].masked, second[1].masked) and torch.equal(first[1].known, second[1].known), case
    torch.testing.assert_close(first[1].likelihood, second[1].likelihood, rtol=2e-5, atol=1e-9)
    assert torch.equal(first[2].index, second[2].index) and torch.equal(first[2].first_bad, second[2].first_bad), case


RULES = [("stride1", "max"), ("nonoverlap", "max"), ("nonoverlap", "prod")]


@pytest.mark.parametrize("arrangement, scoring", RULES)
@pytest.mark.parametrize("length, span_len", [(1, 1), (2, 2), (5, 3), (33, 1), (34, 3), (64, 3), (100, 7), (500, 3),
                                              (1503, 3)])
def test_the_same_spans_are_masked(length: int, span_len: int, arrangement: str, scoring: str, device: str) -> None:
    rule = SpanRule(length, span_len, arrangement == "stride1" and span_len > 1, scoring)
    units = length if rule.by_frame else -(-length // span_len)
    for count in sorted({1, units // 3 or 1, units - 1 or 1, units}):
        expected = buffers(length + count, 1 if length > 1000 else 2, length, 50, device, count)
        given = copy(*expected)
        step.remask(expected[1], expected[2], rule, MASK)
        triton_step.remask(given[1], given[2], rule, MASK)
        assert_same(expected, given, count)


@pytest.mark.filterwarnings("ignore:divide by zero encountered in log")
@pytest.mark.parametrize("arrangement, scoring", RULES)
def test_equal_and_impossible_likelihoods_rank_by_position(arrangement: str, scoring: str, device: str) -> None:
    rule = SpanRule(70, 3, arrangement == "stride1", scoring)
    expected = buffers(0, 3, 70, 50, device)
    expected[1].likelihood.copy_(torch.tensor([0.0, 0.25, 0.5, 1.0], device=device)[(expected[1].likelihood * 4).long()])
    given = copy(*expected)
    step.remask(expected[1], expected[2], rule, MASK)
    triton_step.remask(given[1], given[2], rule, MASK)
    assert_same(expected, given, rule)


SAMPLERS = [Sampler(False), Sampler(True), Sampler(True, top_k=1), Sampler(True, top_k=5), Sampler(True, top_k=9999),
            Sampler(True, top_p=0.9), Sampler(True, top_k=3, top_p=0.4), Sampler(True, top_p=1e-6)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{s.use_sampling}-{s.top_k}-{s.top_p}")
@pytest.mark.parametrize("card, length", [(2, 3), (40, 4), (4096, 1)])
def test_the_same_tokens_are_drawn(sampler: Sampler, card: int, length: int, device: str) -> None:
    expected = buffers(card, 2, length, card, device, random_numbers=rounds(sampler.top_p))
    logits = 3 * torch.randn(4, length, card, generator=torch.Generator().manual_seed(1)).to(device)
    for dtype, branches in ((torch.float16, "both"), (torch.bfloat16, "reuse"), (torch.float32, "conditional")):
        given = copy(*expected)
        part = logits.to(dtype) if branches == "both" else logits[:2].to(dtype)
        differences = [logits[2:].flip(-1) for _ in range(2)]      # flip() copies.
        step.fill(expected[1], expected[2], part, branches, differences[0], sampler)        # type: ignore[arg-type]
        triton_step.fill(given[1], given[2], part, branches, differences[1], sampler)       # type: ignore[arg-type]
        assert_same(expected, given, branches)
        assert torch.equal(*differences)
        expected[2].index.fill_(1)


def test_equal_probabilities_stay_in_top_k_together_and_the_first_token_is_the_greedy_one(device: str) -> None:
    logits = torch.tensor([1.0, 3, 3, 0, 3, -1, 3]).expand(1, 8, 7).to(device)
    for sampler in (Sampler(False), Sampler(True, top_k=2), Sampler(True, top_p=0.3)):
        expected = buffers(5, 1, 8, 7, device, random_numbers=rounds(sampler.top_p))
        expected[1].masked.fill_(True)
        expected[2].uniforms[1, 0, :, 0] = (torch.arange(8) + 0.5) / 8
        given = copy(*expected)
        step.fill(expected[1], expected[2], logits, "conditional", None, sampler)
        triton_step.fill(given[1], given[2], logits, "conditional", None, sampler)
        assert_same(expected, given, sampler)
        filled = set(given[0][:, 1][given[1].masked].tolist())
        assert filled <= {1, 2, 4, 6} and len(filled) > 2 if sampler.use_sampling else filled == {1}


@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("use_sampling", [False, True])
def test_the_first_step_with_logits_that_are_not_finite_is_noted(value: float, use_sampling: bool, device: str) -> None:
    _, state, tables = buffers(3, 2, 4, 6, device)
    logits = torch.zeros(2, 4, 6, device=device)
    bad = logits.clone()
    bad[1, 2, 5] = value
    all_bad = torch.full_like(logits, value)
    tables.index.fill_(0)
    for number, values in enumerate((logits, bad, all_bad)):
        triton_step.fill(state, tables, values, "conditional", None, Sampler(use_sampling))
        assert tables.first_bad.item() == (STEPS if number == 0 else 1)
        assert state.codes.max() < 6 and state.codes.min() >= 0
    assert tables.index.item() == STEPS


def test_extreme_random_numbers_draw_no_token_without_weight(device: str) -> None:
    """At 0 the first token with a weight is drawn; what rounds up to the sum of the weights is left to the next round."""
    logits = torch.tensor([0.05, 0.3, 0.6, 0.05], device=device).log().expand(1, 2, 4)
    clip, state, tables = buffers(0, 1, 2, 4, device)
    state.masked.fill_(True)
    tables.settings[1, 0] = 1
    tables.uniforms[1, 0] = torch.tensor([[0.0, 0.0], [1.0, 0.1]])      # type: ignore[index]
    expected = copy(clip, state, tables)
    step.fill(expected[1], expected[2], logits, "conditional", None, Sampler(True, top_k=2))
    triton_step.fill(state, tables, logits, "conditional", None, Sampler(True, top_k=2))
    assert_same(expected, (clip, state, tables), None)
    assert clip[0, 1].tolist() == [1, 1]


def test_tokens_follow_the_distribution(device: str) -> None:
    """With evenly spaced random numbers each token is drawn in proportion to its probability within the nucleus."""
    count = 60 if device == "cpu" else 20_000
    probs = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15], device=device)
    clip, state, tables = buffers(2, 1, count, 5, device, random_numbers=rounds(0.8))
    tables.uniforms[1, 0, :, 0] = (torch.arange(count, device=device) + 0.5) / count
    tables.settings[1, 0] = 1
    state.masked.fill_(True)
    triton_step.fill(state, tables, probs.log().expand(1, count, 5), "conditional", None, Sampler(True, top_p=0.8))
    share = clip[0, 1].bincount(minlength=5) / count
    expected = torch.tensor([0, 0.4, 0, 0.3, 0.15], device=device) / 0.85
    assert (share - expected).abs().max() < 0.06 and share[0] == share[2] == 0


def test_missing_inputs_are_named() -> None:
    _, state, tables = buffers(0, 1, 4, 6)
    logits = torch.zeros(1, 4, 6)
    with pytest.raises(ValueError, match="uniforms is None"):
        triton_step.fill(state, dataclasses.replace(tables, uniforms=None), logits, "conditional", None, Sampler(True))
    with pytest.raises(ValueError, match="difference is None"):
        triton_step.fill(state, tables, logits, "reuse", None, Sampler(False))


@pytest.mark.integ
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_and_fit_the_registers(capability: int) -> None:
    for length, card in ((500, 2048), (1503, 4096)):
        _, state, tables = buffers(0, 1, length, card)
        logits = torch.zeros(2, length, card, dtype=torch.float16)
        with recorded(triton_step, "remask_kernel", "fill_kernel") as launches:
            for overlapping in (True, False):
                triton_step.remask(state, tables, SpanRule(length, 3, overlapping, "max"), card)
            for sampler in (Sampler(True, top_p=0.9), Sampler(True, top_k=250), Sampler(False)):
                triton_step.fill(state, tables, logits, "both", torch.zeros(1, length, card), sampler)
        assert len(launches) == 5
        for launch in launches:
            usage = compiled(launch, capability)
            print(f"sm_{capability} T={length} card={card} {launch.name}: {usage}")
            assert usage.spilled <= SPILLED and usage.registers <= 255 and usage.shared <= 48 * 1024
