"""Masks for editing: which tokens of a clip are kept; the others are generated again.

Masks are combined like sets: `prefix(1) | every(8)` keeps what either keeps, `codebooks(2) & beats()` what both keep, and
`~` keeps the rest. `print(mask.picture(clip))` shows a mask before anything is generated.

    >>> clip = Clip(codebooks=4, frames=100, frame_rate=50)
    >>> kept = (prefix(0.5) | every(10) & codebooks(2))(clip)                  # Bool [1, 4, 100]
    >>> kept.sum(dim=-1)
    tensor([[32, 32, 25, 25]])

MAGNeT decodes one codebook after another, and each one refines the sound of those below it. A mask therefore usually keeps
codebooks from the lowest upwards. It may keep a token whose lower codebooks are generated again, but that token was made to
refine another sound.

Seconds are snapped to whole frames: a range to keep inwards (`Clip.within`) and a range to generate again outwards
(`Clip.covering`), so that the latter is replaced completely.
"""
import logging
import typing as tp

import torch

from . import keep_events
from .keep_mask import Clip, Keep, check_fraction

logger = logging.getLogger(__name__)
EVENT_WIDTH = 0.08              # seconds that are kept around an onset or a beat, as in VampNet's interface
GOLDEN_RATIO = (5 ** 0.5 - 1) / 2
VAMPNET_CODEBOOKS, VAMPNET_FRAME_RATE = 14, 44100 / 768
Spans = tp.Sequence[tuple[float, float]]


def everything() -> Keep:
    """Keep all tokens."""
    return Keep(lambda clip: torch.ones(clip.frames, dtype=torch.bool), "everything()")


def nothing() -> Keep:
    """Keep no token."""
    return Keep(lambda clip: torch.zeros(clip.frames, dtype=torch.bool), "nothing()")


def tokens(kept: tp.Any) -> Keep:
    """Keep tokens of an array of your own: Bool [B, K, T], [K, T] or [T], True where kept."""
    array = torch.as_tensor(kept).detach().cpu().clone()
    if array.dtype != torch.bool or array.dim() not in (1, 2, 3):
        raise ValueError(f"tokens() got {array.dtype} of shape {list(array.shape)}; give Bool [B, K, T], [K, T] or [T], "
                         "True where a token is kept")

    def rule(clip: Clip) -> torch.Tensor:
        shape = (clip.batch, clip.codebooks, clip.frames)
        if tuple(array.shape) != shape[3 - array.dim():]:
            raise ValueError(f"tokens() got the shape {list(array.shape)}, which does not fit the clip's [B, K, T] = "
                             f"{list(shape)}; give [B, K, T], [K, T] or [T]")
        return array

    return Keep(rule, f"tokens({list(array.shape)})")


def every(n: int, width: int = 1, offset: int = 0) -> Keep:
    """Keep `width` frames around every n-th frame: around `offset`, `offset + n`, … and before.

    An even width has its extra frame before the centre.
    """
    if n < 1:
        raise ValueError(f"every(n={n}) must be at least 1 frame; every(1) keeps everything")
    if not 1 <= width <= n:
        raise ValueError(f"width={width} must be from 1 to n={n} frames")

    def rule(clip: Clip) -> torch.Tensor:
        return (torch.arange(clip.frames) - offset + width // 2) % n < width

    more = (f", width={width}" if width != 1 else "") + (f", offset={offset}" if offset else "")
    return Keep(rule, f"every({n}{more})")


def codebooks(k: int) -> Keep:
    """Keep the lowest `k` codebooks; of interleaved stereo, the lowest `k` of each channel."""
    if k < 0:
        raise ValueError(f"codebooks({k}) must be at least 0")

    def rule(clip: Clip) -> torch.Tensor:
        if k > clip.levels:
            raise ValueError(f"codebooks({k}): the clip has {clip.levels}; give 0 to {clip.levels}")
        return torch.arange(clip.codebooks)[:, None] < k * clip.interleaved

    return Keep(rule, f"codebooks({k})")


def spans(seconds: Spans) -> Keep:
    """Keep the whole frames inside of each (start, end), in seconds."""
    given = _spans(seconds)
    return Keep(lambda clip: _in_ranges(clip, [clip.within(*span) for span in given]), f"spans({given})")


def outside(spans: Spans) -> Keep:
    """Keep everything but the frames that overlap with a (start, end), in seconds."""
    given = _spans(spans)
    return Keep(lambda clip: ~_in_ranges(clip, [clip.covering(*span) for span in given]), f"outside({given})")


def prefix(seconds: float) -> Keep:
    """Keep the first seconds; all of a clip that is shorter."""
    _check_seconds("prefix", seconds)
    return Keep(lambda clip: torch.arange(clip.frames) < clip.floor(seconds), f"prefix({seconds:g})")


def suffix(seconds: float) -> Keep:
    """Keep the last seconds; all of a clip that is shorter."""
    _check_seconds("suffix", seconds)
    return Keep(lambda clip: torch.arange(clip.frames) >= clip.frames - clip.floor(seconds), f"suffix({seconds:g})")


def onsets(width_s: float = EVENT_WIDTH) -> Keep:
    """Keep `width_s` seconds around each onset of the audio: where a note or a stroke begins."""
    return _around("onsets", keep_events.onset_times, width_s)


def beats(width_s: float = EVENT_WIDTH) -> Keep:
    """Keep `width_s` seconds around each beat of the audio.

    The tracker may choose half or twice the tempo, and may miss or misplace the beats nearest to the edges.
    """
    return _around("beats", keep_events.beat_times, width_s)


def strength(x: float, width: int = 3) -> Keep:
    """Keep less and less as `x` rises from 0 (everything) to 1 (nothing).

    Codebook k keeps the share (1 - x)^k, so that the upper ones are forgotten first. It is kept in blocks of `width` frames
    (by default a span of the paper's model) that are spread evenly over the clip. What is kept at a higher strength is also
    kept at a lower one, and what a codebook keeps is also kept in those below it.
    """
    check_fraction("strength", x)
    if width < 1:
        raise ValueError(f"width={width} must be at least 1 frame")

    def rule(clip: Clip) -> torch.Tensor:
        block = torch.arange(clip.frames) // width
        count = int(block[-1]) + 1
        # Multiples of the golden ratio, modulo 1: any first part of them is spread evenly.
        rank = (torch.arange(count, dtype=torch.float64) * GOLDEN_RATIO % 1).argsort().argsort()
        level = torch.arange(clip.codebooks) // clip.interleaved
        return ((rank + 0.5) / count < ((1 - x) ** (level + 1))[:, None])[:, block]

    return Keep(rule, f"strength({x:g}, width={width})")


def _check_seconds(name: str, seconds: float) -> None:
    if not seconds >= 0:
        raise ValueError(f"{name}({seconds}) must be at least 0 seconds")


def _spans(seconds: Spans) -> list[tuple[float, float]]:
    try:
        found = [(float(start), float(end)) for start, end in seconds]
    except (TypeError, ValueError):
        found = []
    if not found:
        raise ValueError(f"spans={seconds!r} must be a list of (start, end) in seconds, such as [(1.5, 3.0)]")
    return found


def _in_ranges(clip: Clip, ranges: tp.Iterable[tuple[int, int]]) -> torch.Tensor:
    """Bool [T], True in any of the ranges of frames."""
    inside = torch.zeros(clip.frames, dtype=torch.bool)
    for first, end in ranges:
        inside[first:end] = True
    return inside


def _around(name: str, find: tp.Callable[[torch.Tensor, int], torch.Tensor], width_s: float) -> Keep:
    """Keep the frames whose middle is at most half of `width_s` from an event, and those that contain one."""
    if not width_s > 0:
        raise ValueError(f"width_s={width_s} must be above 0 seconds")

    def rule(clip: Clip) -> torch.Tensor:
        if clip.audio is None or clip.sample_rate is None:
            raise ValueError(f"{name}() follows the sound: give the clip its audio and sample_rate")
        middle = (torch.arange(clip.frames) + 0.5) / clip.frame_rate
        reach = max(width_s, 1 / clip.frame_rate) / 2 + 1e-6
        rows = []
        for number, wav in enumerate(clip.audio):
            times = find(wav.float().mean(dim=0).cpu(), clip.sample_rate)                       # [events]
            if not len(times):
                logger.warning("no %s found in sample %d of the batch, so nothing is kept around them", name, number)
            rows.append(((middle[:, None] - times).abs() <= reach).any(dim=1))
        return torch.stack(rows)[:, None]                                                       # [B, 1, T]

    return Keep(rule, f"{name}(width_s={width_s:g})")


def _vampnet(name: str, period: int, lowest: int, dropout: float = 0.0, beat_s: float = 0.0) -> Keep:
    """Scale a preset of VampNet to the clip's codec.

    Args:
        name: of the preset.
        period: every `period`-th of VampNet's frames is kept.
        lowest: of its 14 codebooks, the number that these frames keep.
        dropout: share of these frames that is forgotten.
        beat_s: seconds around each beat that keep all codebooks.
    """
    def rule(clip: Clip) -> torch.Tensor:
        n = max(2, round(period * clip.frame_rate / VAMPNET_FRAME_RATE))
        mask = every(n) & codebooks(max(1, round(lowest * clip.levels / VAMPNET_CODEBOOKS)))
        mask = mask.dropout(dropout)
        return (mask | beats(beat_s) if beat_s else mask)(clip)

    return Keep(rule, f'PRESETS["{name}"]')


#: Masks for variations of a clip; `beat` follows its audio. They are VampNet's presets, made for 14 codebooks at 57 frames a
#: second. The number of codebooks is scaled by the share that is kept, and is at least one; the period between kept frames
#: is scaled by time. For 4 codebooks at 50 frames a second, they keep the lowest codebook of every 4th (small), 6th (medium)
#: or 11th frame (large, which also forgets a fifth of these) or of every 2nd frame (timbre), or all codebooks of every 6th
#: frame and around beats (beat).
PRESETS: dict[str, Keep] = {
    "small": _vampnet("small", 5, 4), "medium": _vampnet("medium", 7, 4), "large": _vampnet("large", 13, 4, dropout=0.2),
    "timbre": _vampnet("timbre", 2, 1), "beat": _vampnet("beat", 7, 13, beat_s=EVENT_WIDTH)}
