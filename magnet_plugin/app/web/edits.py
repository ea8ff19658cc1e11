"""Edits that a visitor asks for: the method, the marked regions, and the mask that follows from them."""
import dataclasses
import re
import typing as tp

from ...models import keep
from ...models.keep_mask import Clip, Keep
from .limits import Limits
from .recordings import Recording
from .requests import number

#: Name on the page, and what the marked regions mean.
METHODS = {
    "inpaint": ("Replace", "Drag over the waveform to mark what is generated anew. Several regions are filled in one pass."),
    "extend": ("Extend", "Adds music before or after. Mark a region to extend only that part."),
    "vary": ("Vary", "Makes a variation. Mark regions to vary only them."),
    "loop": ("Loop", "Makes the recording repeat without a seam. Mark a region to loop only that part."),
}
SINGLE = ("extend", "loop")     # methods that use one region, which cuts the recording
LIKE_STRENGTH = "strength"      # the way of varying that has a strength; the others are keep.PRESETS


@dataclasses.dataclass(frozen=True)
class Edit:
    """A checked edit.

    Attributes:
        method: name of a method of `MAGNeT`.
        recording: what is edited, cut already.
        arguments: the method's own arguments as plain values, for the clip's metadata.
        keep: the mask.
        lead, trail: seconds that are added before and after.
    """
    method: str
    recording: Recording
    arguments: dict[str, tp.Any]
    keep: Keep
    lead: float = 0.0
    trail: float = 0.0

    def call(self, model: tp.Any, **common: tp.Any) -> tp.Any:
        """Run the method of the model."""
        import torch
        own = {"keep": self.keep} if self.method == "vary" else self.arguments
        audio = torch.from_numpy(self.recording.audio)
        return getattr(model, self.method)(audio, self.recording.sample_rate, **own, **common)

    def mask(self, codec: tp.Any) -> tp.Any:
        """Return what is kept, Bool [K, T], without generating anything."""
        import torch

        from ...models.generation import frames
        rate, audio = float(codec.frame_rate), torch.from_numpy(self.recording.audio)[None]
        count = sum(frames(seconds, rate) for seconds in (self.lead, self.recording.seconds, self.trail))
        own = (audio, self.recording.sample_rate) if not self.lead + self.trail else (None, None)
        return self.keep(Clip.of(codec, count, 1, *own))[0]


def read_regions(text: tp.Any, seconds: float) -> list[tuple[float, float]]:
    """Read regions as the page writes them.

    >>> read_regions("4.5-5, 1-2.25", 10)
    [(1.0, 2.25), (4.5, 5.0)]

    Args:
        text: start and end in seconds, joined by a hyphen; regions are separated by commas.
        seconds: length of the recording.
    Raises:
        ValueError: the text is not a list of regions, or one is outside of the recording.
    """
    found = []
    for part in re.split(r"[,;\n]+", str(text or "")):
        if not part.strip():
            continue
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(?:-|–|to)\s*(\d+(?:\.\d*)?)\s*", part)
        if match is None:
            raise ValueError(f"the region {part.strip()[:40]!r} cannot be read; write seconds such as 1.5-3, 4-5")
        start, end = float(match[1]), min(float(match[2]), seconds)
        if not start < end:
            raise ValueError(f"the region {part.strip()} must end after its start, and lie within the recording, which "
                             f"lasts {seconds:.2f} s")
        found.append((start, end))
    return sorted(found)


def read_edit(method: tp.Any, recording: tp.Optional[Recording], regions: tp.Any, limits: Limits, *, before: tp.Any = 0,
              after: tp.Any = 0, variation: tp.Any = LIKE_STRENGTH, strength: tp.Any = 0.5, seam: tp.Any = 2) -> Edit:
    """Check an edit.

    Args:
        method: one of `METHODS`.
        recording: what is edited.
        regions: see `read_regions`.
        limits: what is allowed.
        before, after: seconds that `extend` adds.
        variation: `LIKE_STRENGTH` or one of `keep.PRESETS`, for `vary`.
        strength: of `vary`.
        seam: seconds that `loop` generates.
    Raises:
        ValueError: something is missing or invalid.
    """
    if recording is None:
        raise ValueError("there is nothing to edit yet; upload a recording, or choose Edit at one of the clips below")
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; choose one of the list")
    spans = read_regions(regions, recording.seconds)
    if method in SINGLE and len(spans) > 1:
        raise ValueError(f"{METHODS[method][0]} uses one region at most; remove {len(spans) - 1} of them")
    if method == "inpaint":
        if not spans:
            raise ValueError("no region is marked; drag over the waveform to mark what is to be replaced")
        return Edit(method, recording, {"spans": spans}, keep.outside(spans))
    if method == "vary":
        return _vary(recording, spans, variation, strength)
    if spans:
        recording = recording.part(*spans[0])
    if method == "extend":
        return _extend(recording, number(before, "Before"), number(after, "After"), limits)
    return _loop(recording, number(seam, "the seam"))


def _vary(recording: Recording, spans: list[tuple[float, float]], variation: tp.Any, strength: tp.Any) -> Edit:
    arguments: dict[str, tp.Any] = {"strength": number(strength, "the strength")} if variation == LIKE_STRENGTH else {
        "preset": variation}
    if variation != LIKE_STRENGTH and variation not in keep.PRESETS:
        raise ValueError(f"there is no variation {variation!r}; choose one of the list")
    mask = keep.strength(arguments["strength"]) if variation == LIKE_STRENGTH else keep.PRESETS[variation]
    if spans:
        return Edit("vary", recording, {**arguments, "regions": spans}, mask | keep.outside(spans))
    return Edit("vary", recording, arguments, mask)


def _extend(recording: Recording, before: float, after: float, limits: Limits) -> Edit:
    if min(before, after) < 0 or not before + after:
        raise ValueError("nothing is added; set Before or After to some seconds")
    total = recording.seconds + before + after
    if total > limits.max_seconds:
        raise ValueError(f"the result would last {total:.1f} s; the limit is {limits.max_seconds:g} s")
    mask = keep.spans([(before, before + recording.seconds)])
    return Edit("extend", recording, {"before": before, "after": after}, mask, before, after)


def _loop(recording: Recording, seam: float) -> Edit:
    if not 0 < seam <= recording.seconds / 2:
        raise ValueError(f"the seam is {seam:g} s; give more than 0 and at most half of the part that is looped, "
                         f"{recording.seconds / 2:.2f} s")
    ends = [(0.0, seam / 2), (recording.seconds - seam / 2, recording.seconds)]
    return Edit("loop", recording, {"seam": seam}, keep.outside(ends))
