"""claims.md and its pictures, from the records."""
from __future__ import annotations

import json
import statistics
import typing as tp
from pathlib import Path

from ...metrics.judgement import Judgement
from ..markdown import markdown
from ..scores import HEADS, cell, table
from . import pictures
from .measure import BOUNDS, FOLDER, TIMES, case_of, path_of
from .study import CANDIDATES, CLAIMS, JUDGES, PAPER, SYSTEMS, Claim, Comparison
from .verdicts import NOT_REPRODUCED, REPRODUCED, RULE, Outcome, outcome, speed_ups, verdict

INTRO = """# The paper's claims at a small scale

Nine claims of the paper ([2401.04577](https://arxiv.org/abs/2401.04577)), tested on models that two CPU cores can train:
five-second clips of folk tunes, a few million parameters. What holds for them need not hold for models of hundreds of
millions of parameters, and the other way around.

`magnet bench claims` measures and writes this page; `magnet bench table` writes it again from the records in `claims/`.
"""
METHOD = """## How it is judged

Every system generates the same {clips} held-out captions with seeds {seeds}; nothing is selected. Judges that no model was
trained against listen: a classifier of instruments that learnt from real clips, the notes that basic-pitch transcribes
(their share in the key of the caption), and the kernel distance between timbre features of generated and of real clips.

{rule}

With three judges, about one comparison in fourteen of equal systems shows a difference by chance.
"""


class Found:
    """The records in a folder of results.

    Raises:
        ValueError: systems were measured under different conditions, or with different weights of one model.
    """

    def __init__(self, folder: Path) -> None:
        self.judgements: dict[str, Judgement] = {}
        self.conditions: dict[str, tp.Any] = {}
        weights: dict[str, str] = {}
        for name in SYSTEMS:
            case = case_of(folder, name)
            if not case:
                continue
            about, self.judgements[name] = case["about"], Judgement.read(case["judgement"])
            conditions = {key: about[key] for key in ("clips", "seeds")}
            self.conditions = self.conditions or conditions
            model = json.dumps(about["model"])
            if conditions != self.conditions or weights.setdefault(model, about["weights"]) != about["weights"]:
                raise ValueError(f"{path_of(folder, name)} was measured with other clips, seeds or weights than the other "
                                 f"records; run magnet bench claims again, or remove {folder / FOLDER}")
        self.scores = {name: one.scores() for name, one in self.judgements.items()}
        self.bounds, self.times = case_of(folder, BOUNDS), case_of(folder, TIMES)

    def outcomes(self, comparisons: tp.Iterable[Comparison]) -> list[Outcome]:
        """Compare systems."""
        return [outcome(comparison, self.judgements.get) for comparison in comparisons]


def write(folder: Path) -> tp.Optional[Path]:
    """Write claims.md and its pictures from the records in `folder`; None if there are none.

    Raises:
        ValueError: the records do not belong together.
        ImportError: matplotlib is not installed.
    """
    if not (folder / FOLDER).is_dir():
        return None
    found = Found(folder)
    outcomes = {claim.name: found.outcomes(claim.comparisons) for claim in CLAIMS}
    others = found.outcomes(Comparison(one.name, PAPER.name) for one in CANDIDATES)
    pictures.draw_differences([*(one for group in outcomes.values() for one in group), *others],
                              folder / "claims.png")
    margins = ", ".join(f"{judge.margin:g} for {judge.name}" for judge in JUDGES.values())
    conditions = found.conditions or {"clips": 0, "seeds": []}
    parts = [INTRO, summary(outcomes, found), METHOD.format(**conditions, rule=RULE.format(margins=margins)),
             "![Differences](claims.png)\n", systems(found)]
    parts += [section(claim, outcomes[claim.name], found) for claim in CLAIMS]
    parts += ["## Settings that the paper does not use\n\nThe difference of each to the paper's settings, on the same "
              "model.\n", differences(others)]
    if found.times:
        pictures.draw_times(found.times["batches"], found.scores, folder / "claims-times.png")
        parts += [times(found), "![Quality against time](claims-times.png)\n"]
    target = folder / "claims.md"
    target.write_text("\n".join(parts))
    return target


def summary(outcomes: tp.Mapping[str, tp.Sequence[Outcome]], found: Found) -> str:
    """Return the table of verdicts."""
    rows = [[f"[{claim.name}](#{claim.name.lower().replace(' ', '-')})", claim.text,
             verdict(claim, outcomes[claim.name], found.times.get("batches"))] for claim in CLAIMS]
    return markdown(["claim", "what the paper says", "here"], rows, left=3)


def systems(found: Found) -> str:
    """Return the table of all systems with all metrics."""
    return "## All systems\n\n" + table({**found.bounds.get("scores", {}), **found.scores})


def section(claim: Claim, outcomes: tp.Sequence[Outcome], found: Found) -> str:
    """Return the section of a claim."""
    batches = found.times.get("batches")
    parts = [f"## {claim.name}\n\n{claim.text} ({claim.place})\n",
             f"**{verdict(claim, outcomes, batches).capitalize()}.** {claim.note}".rstrip() + "\n"]
    if claim.speed is None:
        parts.append(differences(outcomes))
    elif shares := speed_ups(claim, batches):
        batch, one, other, factor = claim.speed
        parts.append(f"{one} is {statistics.median(shares):.2g} times as fast as {other} with {batch} "
                     f"clip{'s' * (batch > 1)} ({min(shares):.2g} to {max(shares):.2g}); the claim needs more than "
                     f"{factor:g}.\n")
    return "\n".join(parts)


def differences(outcomes: tp.Sequence[Outcome]) -> str:
    """Return the table of differences with their intervals."""
    words = {REPRODUCED: "better", NOT_REPRODUCED: "worse"}
    rows = [[f"{one.comparison.one} − {one.comparison.other}",
             *(cell(one.differences.get(name), "+.3f") for name in JUDGES),
             words.get(one.verdict, one.verdict) if one.comparison.strict or one.verdict == NOT_REPRODUCED else
             "not worse" if one.verdict == REPRODUCED else one.verdict] for one in outcomes]
    return markdown(["", *(HEADS[name] for name in JUDGES), ""], rows)


def times(found: Found) -> str:
    """Return the table of times."""
    parts = [f"## Time\n\nOf clips of {found.times['about']['seconds']:g} seconds, measured in turn on a CPU.\n"]
    for batch, rows in found.times["batches"].items():
        parts.append(markdown([f"batch {batch}", "seconds per clip"], [
            [name, f"{statistics.median(row['seconds']) / int(batch):.3g}" if "seconds" in row else row["error"]]
            for name, row in rows.items()]))
    return "\n".join(parts)
