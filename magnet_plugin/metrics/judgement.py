"""What the judges say of a set of clips, and whether they say more of it than of another set."""
from __future__ import annotations

import dataclasses
import typing as tp

import torch

from .bootstrap import mean_interval
from .jackknife import Jackknife

Scores = dict[str, list[float]]                 # by metric: value, and the ends of its 95% interval


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Judgements of clips that were generated from the same captions by one or more seeds.

    Attributes:
        by_clip: by metric, the values of every clip: [seeds][clips].
        distances: by metric, the distance of all clips from the real ones.
    """
    by_clip: dict[str, list[list[float]]]
    distances: dict[str, Jackknife]

    def scores(self) -> Scores:
        """Return every metric with its interval over clips and seeds."""
        return {**{name: mean_interval(torch.tensor(values)) for name, values in self.by_clip.items()},
                **{name: found.interval() for name, found in self.distances.items()}}

    def minus(self, other: Judgement) -> Scores:
        """Return the differences to another judgement in the metrics that both have, clip for clip.

        Clips with the same caption are compared, which makes the intervals narrower than those of `scores`.

        Raises:
            ValueError: the numbers of clips or seeds differ.
        """
        found: Scores = {}
        for name in self.by_clip.keys() & other.by_clip.keys():
            mine, theirs = torch.tensor(self.by_clip[name]), torch.tensor(other.by_clip[name])
            if mine.shape != theirs.shape:
                raise ValueError(f"{list(mine.shape)} seeds and clips cannot be compared with {list(theirs.shape)}")
            found[name] = mean_interval(mine - theirs)
        for name in self.distances.keys() & other.distances.keys():
            found[name] = self.distances[name].minus(other.distances[name]).interval()
        return found

    def plain(self) -> dict[str, tp.Any]:
        """Return lists and numbers for JSON, see `read`."""
        return {"by_clip": {name: [[round(value, 4) for value in seed] for seed in seeds]
                            for name, seeds in self.by_clip.items()},
                "distances": {name: dataclasses.asdict(found) for name, found in self.distances.items()}}

    @staticmethod
    def read(values: tp.Mapping[str, tp.Any]) -> Judgement:
        """Read what `plain` returned."""
        return Judgement(dict(values["by_clip"]), {name: Jackknife(found["value"], tuple(found["without"]))
                                                   for name, found in values["distances"].items()})
