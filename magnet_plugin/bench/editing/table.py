"""The section of bench.md about editing."""
from __future__ import annotations

import typing as tp

from ..markdown import markdown
from .rows import LONG, Row, Rows, fewer

SECOND = {"latents": "codec latents ↓", "timbre": "timbre ↓", "chroma": "pitch classes ↓", "flux": "flux at the seams, dB",
          "click": "click, dB"}
VARY = {"latents": "codec latents", "timbre": "timbre", "chroma": "pitch classes", "same_tokens": "tokens of the source"}
LOOP = {"flux": "flux, dB", "click": "click, dB", "step": "step of the spectrum, dB"}
DRIFT = {"same_instrument": "same instrument ↑", "timbre": "timbre ↓", "same_key": "same key ↑",
         "pitches": "pitch classes ↓", "instrument_first": "captioned instrument, first",
         "instrument_last": "last ↑", "in_key_first": "energy in the captioned key, first",
         "in_key_last": "last ↑"}
SHARES = {"same_tokens", *DRIFT} - {"timbre", "pitches"}

ABOUT = """Distances are means over clips and seeds, with 95% bootstrap intervals over both in brackets. *Codec latents*:
mean distance of the quantised latents, frame by frame. *Timbre*: distance of the instrument classifier's features, in
standard deviations. *Pitch classes*: 1 − cosine of the chroma, ten times a second. The last two are computed from audio and
do not know the codec. *Flux*: the largest rise of the log spectrum within 16 ms of a place. *Click*: how far the log
spectrum stands out there above that 20 ms earlier and later.
"""
ABOUT_SECOND = """The second in the middle of a clip is edited, with the clip's caption, and compared with the real second
through the codec. The controls are put into its place by hard cuts. *Every 7th frame kept* frees as many tokens in a wider
region, as VampNet's periodic masks do. *Shown* and *hidden* are values of `upper_codebooks`. Rows with a minus sign are mean
differences over the same clips and seeds.
"""
ABOUT_VARY = "Compared with the source through the codec. {}\n"
ABOUT_LOOP = """The clip is repeated; `loop` generates the last and the first second anew. *Step*: difference of the average
log spectra of the 0.1 s before and after the place.
"""
ABOUT_LONG = f"""Clips of {LONG:g} s from captions; their first window is compared with their last one. Windows are as
long as the model's clips; the stride is a share of that. *Independent* clips only have the caption in common. Keys are
estimated from the chroma by Krumhansl and Kessler's profiles.
"""


def blocks(found: dict[str, tp.Any]) -> list[str]:
    """Return the blocks of a record of `magnet bench editing`."""
    units, clips = found["units"], found["clips"]
    about = f"{clips} held-out clips, seeds {', '.join(map(str, found['seeds']))}"
    some = f"{fewer(clips)} of the clips"
    drifts = {row: entry for name, rows in units.items() if name.split()[0] in ("long", "independent")
              for row, entry in rows.items()}
    parts = [f"### Editing: {about}\n", ABOUT]
    for head, text, rows, columns in (
            ("### Inpainting: the second in the middle\n", ABOUT_SECOND, units.get("second", {}), SECOND),
            (f"### Variations: {some}\n", ABOUT_VARY.format(monotone(units.get("vary", {}))), units.get("vary", {}), VARY),
            ("### Loops\n", ABOUT_LOOP, units.get("loop", {}), LOOP),
            (f"### Long clips: {some}\n", ABOUT_LONG, drifts, DRIFT)):
        if rows:
            parts += [head, text, table(rows, columns)]
    return parts


def table(rows: Rows, columns: dict[str, str]) -> str:
    """Return a Markdown table with one line per row, and a dash where a row lacks a metric."""
    return markdown(["", *columns.values()], [[name, *(cell(entry, metric) for metric in columns)]
                                              for name, entry in rows.items()])


def cell(entry: Row, metric: str) -> str:
    """Return `0.52 [0.48, 0.55]`, in percent for shares."""
    if metric not in entry:
        return "–"
    mean, low, high = (value * (100 if metric in SHARES else 1) for value in entry[metric])
    digits, unit = (0, "%") if metric in SHARES else (1, "") if max(abs(low), abs(high)) >= 10 else (2, "")
    show = [f"{value:.{digits}f}".replace("-", "−") for value in (mean, low, high)]
    return f"{show[0]}{unit}" if low == mean == high else f"{show[0]}{unit} [{show[1]}, {show[2]}]"


def monotone(rows: Rows) -> str:
    """Say whether the mean distances rise from each strength to the next."""
    chain = [entry for name, entry in rows.items() if name.startswith("strength")]
    counts = [f"{VARY[metric]} in {sum(one[metric][0] < other[metric][0] for one, other in zip(chain, chain[1:]))}"
              for metric in ("latents", "timbre", "chroma")] if chain else []
    return f"From one strength to the next, the mean distance rises in the {len(chain) - 1} steps as follows: " \
           f"{', '.join(counts)}." if counts else ""
