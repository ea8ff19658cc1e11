"""The rule by which a claim counts as reproduced. Nothing here is decided by hand."""
from __future__ import annotations

import dataclasses
import typing as tp

from ...metrics.judgement import Judgement, Scores
from .study import JUDGES, Claim, Comparison

RULE = """A judge prefers a system if the 95% interval of the difference, clip for clip, lies on one side of zero. One system
is *better* than another if at least one judge prefers it and none prefers the other. A claim that something is better is
*reproduced* if all of its comparisons show it, and *not reproduced* if one shows the opposite. A claim that something is
not worse is reproduced if all intervals exclude a loss above a margin ({margins}), and not reproduced if a judge prefers the
other system and none prefers this one. All other claims are *undecided*: intervals are too wide, or the judges disagree."""
REPRODUCED, NOT_REPRODUCED, UNDECIDED, NOT_MEASURED = "reproduced", "not reproduced", "undecided", "not measured"
Find = tp.Callable[[str], tp.Optional[Judgement]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one comparison.

    Attributes:
        comparison: what was compared.
        differences: `one` minus `other` by metric, with intervals.
        verdict: one of the four words above.
    """
    comparison: Comparison
    differences: Scores
    verdict: str


def outcome(comparison: Comparison, find: Find) -> Outcome:
    """Compare two systems.

    Args:
        comparison: what is compared.
        find: returns the judgement of a system, or None if it was not measured.
    """
    one, other = find(comparison.one), find(comparison.other)
    if one is None or other is None:
        return Outcome(comparison, {}, NOT_MEASURED)
    differences = one.minus(other)
    known = {name: judge for name, judge in JUDGES.items() if name in differences}
    sides = {judge.side(differences[name]) for name, judge in known.items()}
    if -1 in sides:
        verdict = UNDECIDED if 1 in sides else NOT_REPRODUCED
    elif comparison.strict:
        verdict = REPRODUCED if 1 in sides else UNDECIDED
    else:
        close = all(judge.within_margin(differences[name]) for name, judge in known.items())
        verdict = REPRODUCED if close else UNDECIDED
    return Outcome(comparison, differences, verdict)


def verdict(claim: Claim, outcomes: tp.Sequence[Outcome], times: tp.Optional[tp.Mapping[str, tp.Any]]) -> str:
    """Return the verdict on a claim from its comparisons, or from times."""
    if claim.speed is not None:
        shares = speed_ups(claim, times)
        if not shares:
            return NOT_MEASURED
        factor = claim.speed[3]
        return REPRODUCED if min(shares) > factor else NOT_REPRODUCED if max(shares) < factor else UNDECIDED
    found = {one.verdict for one in outcomes}
    for word in (NOT_MEASURED, NOT_REPRODUCED, UNDECIDED):
        if word in found:
            return word
    return REPRODUCED


def speed_ups(claim: Claim, times: tp.Optional[tp.Mapping[str, tp.Any]]) -> list[float]:
    """Return how many times as fast the claimed system was in each round; nothing if it was not measured.

    Args:
        claim: a claim about time.
        times: results of `measure_in_turn` by batch size and system.
    """
    assert claim.speed is not None
    batch, one, other, _ = claim.speed
    rows = (times or {}).get(str(batch), {})
    if not all("seconds" in rows.get(name, {}) for name in (one, other)):
        return []
    return [theirs / mine for mine, theirs in zip(rows[one]["seconds"], rows[other]["seconds"])]
