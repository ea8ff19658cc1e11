"""Clips of any length: windows as long as the clips of training, which overlap on tokens that are known by then."""
import dataclasses
import typing as tp

import torch

from .known_tokens import KnownTokens

ORDERS = ("forward", "alternate")
AUTO = "auto"           # alternate for clips that are generated from a text, forward for others


@dataclasses.dataclass(frozen=True)
class Window:
    """Frames from `start` up to, but not including, `stop`."""
    start: int
    stop: int

    def of(self, known: KnownTokens) -> KnownTokens:
        """Return this part of a clip."""
        part = slice(self.start, self.stop)
        return KnownTokens(known.tokens[..., part], known.known[..., part])


def plan_windows(free: tp.Sequence[bool], size: int, overlap: int, order: str = "forward") -> list[Window]:
    """Place windows so that each free frame is in one of them, and each window fills in at least one.

    A window begins `overlap` frames before the first frame that is still free. If the free frames in its reach end early, it
    is centred on them, so that it sees as much before them as after them.

    >>> plan_windows([True] * 25, size=10, overlap=4)
    [Window(start=0, stop=10), Window(start=6, stop=16), Window(start=12, stop=22), Window(start=15, stop=25)]

    Args:
        free: whether something is unknown in a frame, for each of T frames.
        size: frames in a window; clips that are not longer are one window.
        overlap: frames that a window shares with the one before it.
        order: `forward`, or `alternate`: every other window does not see the one before it, which follows at once and sees
            both neighbours. Finished audio is one window late.
    Returns:
        Windows in the order of decoding.
    Raises:
        ValueError: the overlap leaves no room for new frames.
    """
    length = len(free)
    if order not in ORDERS:
        raise ValueError(f"window_order={order!r} is unknown; choose one of {', '.join(ORDERS)}")
    if not 0 <= overlap < size:
        raise ValueError(f"windows of {size} frames cannot overlap by {overlap}; set extend_stride above 0 and at most the "
                         "length of a window")
    if order == "alternate" and 2 * overlap >= size:
        raise ValueError("window_order=alternate needs windows that overlap by less than half, so that the first ones leave "
                         "gaps; raise extend_stride, or set window_order=forward")
    if length <= size:
        return [Window(0, length)] if any(free) else []
    windows, frame = [], 0
    while (first := next((t for t in range(frame, length) if free[t]), None)) is not None:
        start = min(max(first - overlap, 0), length - size)
        last = max(t for t in range(first, min(start + size, length)) if free[t])
        centred = min(max((first + last + 1 - size) // 2, 0), length - size)
        start = min(start, centred)
        windows.append(Window(start, start + size))
        frame = last + 1
    if order == "alternate":
        windows = _useful((windows[number] for number in _alternate(len(windows))), free)
    return windows


def _alternate(count: int) -> list[int]:
    """Numbers of windows: 0, 2, 1, 4, 3, …"""
    return sorted(range(count), key=lambda number: number + 1.5 * (number % 2))


def _useful(windows: tp.Iterable[Window], free: tp.Sequence[bool]) -> list[Window]:
    """Remove windows whose free frames are all in earlier ones, as happens at the end of a clip."""
    left, useful = list(free), []
    for window in windows:
        if any(left[window.start:window.stop]):
            useful.append(window)
            left[window.start:window.stop] = [False] * (window.stop - window.start)
    return useful


def decode_windows(known: KnownTokens, windows: tp.Sequence[Window], fill: tp.Callable[[KnownTokens, Window], torch.Tensor],
                   on_progress: tp.Callable[[torch.Tensor, int], None] = lambda tokens, frames: None) -> torch.Tensor:
    """Fill in a clip window by window.

    Args:
        known: the clip; its tokens are kept.
        windows: result of `plan_windows` for what is unknown in the clip.
        fill: `fill(part, window)` fills in a part of the clip; returns Long [B, K, stop - start].
        on_progress: called after each window with the tokens [B, K, T] and the number of leading frames that are final.
    Returns:
        Long [B, K, T].
    """
    clip = KnownTokens(known.tokens.clone(), known.known.clone())
    for window in windows:
        clip.tokens[..., window.start:window.stop] = fill(window.of(clip), window)
        clip.known[..., window.start:window.stop] = True
        final = clip.known.all(dim=0).all(dim=0).long().cumprod(dim=0).sum()
        on_progress(clip.tokens, int(final))
    return clip.tokens
