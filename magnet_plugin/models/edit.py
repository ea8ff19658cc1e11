"""Edit: the result of an edit, and the spans that describe it."""
import dataclasses
import typing as tp

import torch

from ..decoding.option_types import real

Spans = tp.Union[tp.Sequence[tuple[float, float]], tp.Sequence[tp.Sequence[tuple[float, float]]]]


@dataclasses.dataclass(frozen=True)
class Edit:
    """The result of an edit.

    Attributes:
        audio: float32 [B, C, samples], with the sample rate and the channels of the recording.
        sample_rate: in Hz.
        tokens: of the whole clip, Long [B, K, T].
        known: which of them were kept, Bool [B, K, T].
        spans: for each sample, (start, end) in seconds of what was generated, snapped to the codec's frames.
        seeds: one per sample; None if torch's global random state was used.
        method: name of the method.
        arguments: its arguments except audio, sample rate and seed.
        settings: the settings in use, see `settings.settings`. `getattr(model, method)(audio, sample_rate, **arguments,
            seed=seeds)` under the same settings gives the same edit on the same device.
    """
    audio: torch.Tensor
    sample_rate: int
    tokens: torch.Tensor
    known: torch.Tensor
    spans: list[list[tuple[float, float]]]
    seeds: tp.Optional[list[int]]
    method: str
    arguments: dict[str, tp.Any]
    settings: dict[str, tp.Any]


def read_spans(spans: Spans, batch: int, length: float) -> list[list[tuple[float, float]]]:
    """Return the spans of each sample.

    Args:
        spans: (start, end) in seconds for all samples, or a list of them for each sample.
        batch: number of samples B.
        length: of the recording in seconds.
    Raises:
        ValueError: there are no spans, or one does not lie within the recording.
    """
    try:
        entries: list[tp.Any] = [list(entry) for entry in spans]
        shared = all(len(entry) == 2 and not hasattr(entry[0], "__len__") for entry in entries)
        per_sample = [[(real("spans", start), real("spans", end)) for start, end in own]
                      for own in ([entries] * batch if shared else entries)]
    except (TypeError, ValueError):
        per_sample = []
    if len(per_sample) != batch or not any(per_sample):
        raise ValueError(f"spans={spans!r} must be a list of (start, end) in seconds, or one such list for each of the "
                         f"{batch} samples")
    for start, end in (span for own in per_sample for span in own):
        if not 0 <= start < end <= length + 1e-6:
            raise ValueError(f"the span ({start}, {end}) must lie within the recording, which lasts {length:.2f} s, and end "
                             "after its start")
    return per_sample


def turned(start: float, end: float, by: float, length: float) -> list[tuple[float, float]]:
    """Move a span by some seconds in a clip whose end continues at its start; it may become two."""
    start, end = start + by, end + by
    if start >= length:
        return [(start - length, end - length)]
    return [(start, end)] if end <= length else [(start, length), (0.0, end - length)]
