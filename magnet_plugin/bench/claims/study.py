"""The claims of the paper (arXiv 2401.04577), and the systems whose comparison tests them.

A system generates the same held-out captions as all others, and the same judges listen to it. This imports nothing heavy.
"""
from __future__ import annotations

import dataclasses
import typing as tp

from ..settings import HYBRID, MUSICGEN, Setting


@dataclasses.dataclass(frozen=True)
class Judge:
    """A metric that decides.

    Attributes:
        name: for people.
        higher: whether higher is better.
        margin: a difference that counts as small in claims that something is not worse.
    """
    name: str
    higher: bool
    margin: float

    def side(self, interval: tp.Sequence[float]) -> int:
        """Return 1 if the interval [value, low, high] of a difference says better, -1 if worse, 0 if it contains zero."""
        _, low, high = interval
        sign = (low > 0) - (high < 0)
        return sign if self.higher else -sign

    def within_margin(self, interval: tp.Sequence[float]) -> bool:
        """Whether the whole interval of a difference excludes that it is worse by more than the margin."""
        _, low, high = interval
        return low > -self.margin if self.higher else high < self.margin


#: The judges by metric. The other metrics are shown, and decide nothing.
JUDGES = {"instruments": Judge("instrument recognised", True, 0.1), "in_key": Judge("share in key", True, 0.1),
          "kernel_timbre": Judge("kernel distance, timbre", False, 0.05)}

# Training ablations: a small MAGNeT per setting, long enough to be far from a uniform guess.
TRAINING = ("solver=magnet", "optim.epochs=8")


def trained(span_len: int, context: int) -> Setting:
    """Return a system with a model of its own, trained with a span length and a restricted context, both in frames."""
    name = f"span {span_len}, context {context if context >= 0 else 'all'}"
    return Setting(name, training=(*TRAINING, f"masking.span_len={span_len}", f"transformer_lm.subcodes_context={context}"))


def guided(first: float, last: float) -> Setting:
    """Return MAGNeT with other guidance scales: when everything is masked, and when nothing is."""
    return Setting(f"guidance {first:g} → {last:g}", {"max_cfg_coef": first, "min_cfg_coef": last})


def stepped(*steps: int) -> Setting:
    """Return MAGNeT with other numbers of decoding steps."""
    return Setting(f"steps {', '.join(map(str, steps))}", {"decoding_steps": list(steps)})


PAPER = Setting("MAGNeT")
AUTOREGRESSIVE = Setting("MusicGen", model=MUSICGEN)
RESCORED = {weight: Setting(f"rescored, w = {weight}", {"rescorer": MUSICGEN, "rescorer_weight": weight})
            for weight in (0.7, 0.5)}
HYBRIDS = {seconds: Setting(f"hybrid, {seconds:g} s", {"prompt_duration": seconds}, HYBRID) for seconds in (0.0, 1.0, 2.0)}
SPANS = {span_len: trained(span_len, 5) for span_len in (1, 3, 10)}
UNRESTRICTED = trained(3, -1)
GUIDANCES = [guided(3, 3), guided(10, 10), guided(1, 10), guided(1, 1)]
FEWER, LATER, MORE = stepped(5, 10, 10, 10), stepped(20, 20, 20, 20), stepped(40, 10, 10, 10)
#: Settings that the paper does not use. Each is compared with the paper's.
CANDIDATES = [
    Setting("guided at mask rates 0 to 0.8", {"guidance_interval": [0.0, 0.8]}), stepped(10, 5, 5, 5),
    Setting("temperature 1", {"temperature": 1.0}), Setting("temperature 2", {"temperature": 2.0}),
    Setting("top-p 0.7", {"top_p": 0.7}),
    Setting("spans on a grid", {"span_arrangement": "nonoverlap"}),
    *(Setting(f"Halton order, temperature {temperature:g}", {"span_order": "halton", "temperature": temperature})
      for temperature in (1.0, 1.5)),
    Setting("Halton order, temperature 1, half the steps",
            {"span_order": "halton", "temperature": 1.0, "decoding_steps": [10, 5, 5, 5]}),
    Setting("temperature 1, half the steps", {"temperature": 1.0, "decoding_steps": [10, 5, 5, 5]}),
    Setting("temperature 1, guidance 1 → 5", {"temperature": 1.0, "max_cfg_coef": 1.0, "min_cfg_coef": 5.0}),
    Setting("MusicGen prompt, 1 s", {"prompt_model": MUSICGEN, "prompt_duration": 1.0}),
]
SYSTEMS: dict[str, Setting] = {one.name: one for one in (
    PAPER, AUTOREGRESSIVE, *RESCORED.values(), *HYBRIDS.values(), *GUIDANCES, FEWER, LATER, MORE, *CANDIDATES,
    *SPANS.values(), UNRESTRICTED)}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two systems, and which of them the paper prefers.

    Attributes:
        one, other: names of systems.
        strict: `one` must be better than `other`; otherwise it must not be worse.
    """
    one: str
    other: str
    strict: bool = True


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        name: heading.
        text: the claim.
        place: where the paper makes it.
        comparisons: each must hold for the claim to be reproduced.
        speed: for claims about time: batch size, and which of `SPEED` must be faster than which, by at least a factor.
        note: what differs from the paper's experiment.
    """
    name: str
    text: str
    place: str
    comparisons: tuple[Comparison, ...] = ()
    speed: tp.Optional[tuple[int, str, str, float]] = None
    note: str = ""


def better(one: Setting, *others: Setting) -> tuple[Comparison, ...]:
    """Return comparisons in which `one` must be better than each of the others."""
    return tuple(Comparison(one.name, other.name) for other in others)


def not_worse(one: Setting, *others: Setting) -> tuple[Comparison, ...]:
    """Return comparisons in which `one` must not be worse than any of the others."""
    return tuple(Comparison(one.name, other.name, strict=False) for other in others)


#: Systems whose time is measured.
SPEED = [PAPER, stepped(10, 5, 5, 5), RESCORED[0.5], HYBRIDS[1.0], AUTOREGRESSIVE]
CLAIMS = [
    Claim("Span length", "Masking spans of three frames is better than masking single frames, and than long spans.",
          "section 5, ablation of the span length", better(SPANS[3], SPANS[1], SPANS[10])),
    Claim("Restricted context", "Letting the codebooks above the first attend only to frames nearby is better than letting "
          "them attend to all.", "section 5, ablation of the restricted context", better(SPANS[3], UNRESTRICTED)),
    Claim("Annealed guidance", "Lowering the guidance scale from 10 to 1 while a codebook is decoded is better than a "
          "constant scale.", "section 3.3 and its ablation", better(PAPER, *GUIDANCES[:2])),
    Claim("Steps", "Most of the quality depends on the steps of the first codebook; ten steps are enough for each of the "
          "others.", "section 5, decoding steps", (*better(PAPER, FEWER), *not_worse(PAPER, LATER, MORE))),
    Claim("Rescoring", "Mixing in the probabilities of an autoregressive model improves MAGNeT.",
          "section 3.2 and its ablation", tuple(better(one, PAPER)[0] for one in RESCORED.values())),
    Claim("Hybrid", "A model that generates the start of a clip token by token and the rest in parallel is better than "
          "generating everything in parallel.", "section 3.4 and its ablation",
          tuple(better(HYBRIDS[seconds], HYBRIDS[0.0])[0] for seconds in (1.0, 2.0)),
          note="Compared with the same model without the prompt, so that only the decoding differs."),
    Claim("Quality", "MAGNeT is not worse than an autoregressive model of the same size.", "section 4, main results",
          not_worse(PAPER, AUTOREGRESSIVE)),
    Claim("Latency", "At small batches MAGNeT is about seven times as fast as the autoregressive model.",
          "section 4.2, latency", speed=(1, PAPER.name, AUTOREGRESSIVE.name, 7.0),
          note="The paper's clips have 10 and 30 seconds, its models 300 million parameters and more, its device is a GPU; "
               "there a step costs about the same for one frame as for all of them. On a CPU it does not."),
    Claim("Throughput", "At large batches the autoregressive model is the faster one.", "section 4.2, throughput",
          speed=(16, AUTOREGRESSIVE.name, PAPER.name, 1.0), note="Measured on a CPU, with short clips."),
]
