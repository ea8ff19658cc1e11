"""Windows: every free frame is in one, each has something to do, and known tokens are kept."""
import pytest
import torch
from hypothesis import strategies as st

from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.windows import ORDERS, Window, decode_windows, plan_windows

from ..helpers.drawn import drawn

K = 2


def runs(length: int) -> st.SearchStrategy[list[bool]]:
    """Free frames in runs, as spans and prompts leave them."""
    run = st.tuples(st.booleans(), st.integers(1, length))
    return st.lists(run, min_size=1, max_size=6).map(
        lambda found: [free for free, count in found for _ in range(count)][:length])


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[bool], int, int, str]:
    """What is free, and the size, overlap and order of windows."""
    order = draw(st.sampled_from(ORDERS))
    size = draw(st.integers(1, 12))
    overlap = draw(st.integers(0, (size - 1) // (2 if order == "alternate" else 1)))
    return draw(st.one_of(runs(60), st.integers(1, 60).map(lambda length: [True] * length))), size, overlap, order


@drawn(200, 2000, plan=plans())
def test_windows_reach_every_free_frame_and_each_fills_in_some(plan: tuple[list[bool], int, int, str]) -> None:
    free, size, overlap, order = plan
    left = {t for t, one in enumerate(free) if one}
    windows = plan_windows(free, size, overlap, order)
    for window in windows:
        inside = set(range(window.start, window.stop))
        assert inside <= set(range(len(free)))
        assert window.stop - window.start == min(size, len(free)), "windows are as long as in training"
        assert inside & left, "a window has something to do"
        left -= inside
    assert not left
    if order == "forward":
        assert windows == sorted(windows, key=lambda window: window.start)
        for window, following in zip(windows, windows[1:]):
            first = next(t for t in range(window.stop, len(free)) if free[t])
            assert following.start <= max(first - overlap, 0), "a window sees at least the overlap"


@pytest.mark.parametrize("length, order, expected", [
    (25, "forward", [(0, 10), (6, 16), (12, 22), (15, 25)]), (25, "alternate", [(0, 10), (12, 22), (6, 16), (15, 25)]),
    (34, "alternate", [(0, 10), (12, 22), (6, 16), (24, 34), (18, 28)]),
    (20, "forward", [(0, 10), (6, 16), (10, 20)]), (20, "alternate", [(0, 10), (10, 20)]),
    (10, "forward", [(0, 10)]), (11, "alternate", [(0, 10), (1, 11)]), (3, "forward", [(0, 3)])])
def test_windows_of_ten_frames_overlap_by_four(length: int, order: str, expected: list[tuple[int, int]]) -> None:
    assert plan_windows([True] * length, 10, 4, order) == [Window(*one) for one in expected]


def test_a_window_is_centred_on_a_short_gap() -> None:
    gap = [30 <= t < 34 for t in range(60)]
    assert plan_windows(gap, 10, 2) == [Window(27, 37)]
    assert plan_windows(gap[:36], 10, 2) == [Window(26, 36)], "the clip ends before"
    assert plan_windows(gap[29:], 10, 2) == [Window(0, 10)], "the clip begins after"


def test_nothing_is_decoded_where_nothing_is_free() -> None:
    for length in (5, 10, 40):
        assert plan_windows([False] * length, 10, 4) == []


@drawn(60, 1000, plan=plans(), seed=st.integers(0, 10 ** 6))
def test_known_tokens_are_kept_and_free_ones_filled_once(plan: tuple[list[bool], int, int, str], seed: int) -> None:
    free, size, overlap, order = plan
    generator = torch.Generator().manual_seed(seed)
    known = torch.rand(2, K, len(free), generator=generator) < 0.5
    known |= ~torch.tensor(free)
    known[0, 0] &= ~torch.tensor(free)
    tokens = torch.randint(0, 50, known.shape, generator=generator)
    given = KnownTokens(torch.where(known, tokens, -1), known)
    fills, finals = torch.zeros_like(tokens), []

    def fill(part: KnownTokens, window: Window) -> torch.Tensor:
        assert part.tokens.shape[-1] == window.stop - window.start
        assert (part.tokens[part.known] >= 0).all() and (part.tokens[~part.known] == -1).all()
        fills[..., window.start:window.stop] += ~part.known
        return torch.where(part.known, part.tokens, 100 + torch.arange(window.start, window.stop))

    result = decode_windows(given, plan_windows(free, size, overlap, order), fill,
                            lambda tokens, final: finals.append((tokens[..., :final].clone(), final)))
    assert torch.equal(result, torch.where(known, tokens, 100 + torch.arange(len(free))))
    assert torch.equal(fills, (~known).long())
    assert (given.tokens[~known] == -1).all(), "the caller's tokens are unchanged"
    assert [final for _, final in finals] == sorted(final for _, final in finals)
    assert not finals or finals[-1][1] == len(free)
    assert all(torch.equal(tokens, result[..., :final]) for tokens, final in finals), "final tokens stay as they are"


@pytest.mark.parametrize("order, expected", [("forward", [10, 16, 22, 25]), ("alternate", [10, 10, 22, 25])])
def test_leading_frames_are_final_as_soon_as_they_are_known(order: str, expected: list[int]) -> None:
    nothing = KnownTokens(torch.zeros(1, K, 25, dtype=torch.long), torch.zeros(1, K, 25, dtype=torch.bool))
    finals: list[int] = []
    decode_windows(nothing, plan_windows([True] * 25, 10, 4, order), lambda part, window: part.tokens,
                   lambda tokens, final: finals.append(final))
    assert finals == expected


@pytest.mark.parametrize("size, overlap, order, words", [
    (10, 10, "forward", "10 frames cannot overlap by 10; set extend_stride above 0"),
    (10, -1, "forward", "cannot overlap by -1.*at most the length of a window"),
    (10, 5, "alternate", "overlap by less than half.*raise extend_stride, or set window_order=forward"),
    (10, 4, "backward", "window_order='backward' is unknown; choose one of forward, alternate")])
def test_invalid_windows_are_refused(size: int, overlap: int, order: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_windows([], size, overlap, order)
