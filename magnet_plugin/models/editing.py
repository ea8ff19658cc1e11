"""Editing of recordings: a mask over the tokens of a recording says what is kept, and MAGNeT fills in the rest."""
import dataclasses
import typing as tp

import torch
from audiocraft.data.audio_utils import convert_audio
from torch.nn import functional as F

from ..decoding.known_tokens import KnownTokens
from ..decoding.option_types import real
from ..decoding.random_source import Seed, sample_seeds
from . import codec_chunks
from . import keep as masks
from .clips import ClipModel
from .edit import Edit, Spans, read_spans, turned
from .generation import frames
from .keep_mask import Clip, Keep
from .settings import MAX_DURATION, settings
from .splice import Canvas, regions_of
from .stereo import check_parallel_channels
from .texts import Description, Texts
from .waveforms import read_waveform

Descriptions = tp.Optional[tp.Sequence[Description]]
Negative = tp.Union[Description, tp.Sequence[Description]]
_MERGED = 0.5           # seconds; `vary` does not go back to the recording for less than this


@dataclasses.dataclass(frozen=True)
class _Job:
    """What the methods have in common: the recording as given, its texts and its seeds."""
    audio: torch.Tensor
    sample_rate: int
    texts: Texts
    seeds: tp.Optional[list[int]]
    progress: bool


class EditingMethods(ClipModel):
    """The editing methods of `MAGNeT`.

    All of them take:
        audio: the recording, [B, C, samples], or [C, samples] for one sample, see `read_waveform`.
        sample_rate: its sample rate in Hz. The result has the same one, and the same channels.
        descriptions: one text per sample; None edits without a text.
        negative_descriptions: see `MAGNeT.generate`.
        seed: one seed, or one per sample; the same seed gives the same edit on the same device.
        progress: show a progress bar.

    Decoding follows the model's settings, without `duration`. Recordings may be longer than the model's clips. Outside of
    the edited spans, samples come back unchanged; a short cross-fade lies inside of them.
    """

    def inpaint(self, audio: torch.Tensor, sample_rate: int, spans: Spans, descriptions: Descriptions = None, *,
                negative_descriptions: Negative = None, seed: Seed = None, progress: bool = False) -> Edit:
        """Generate some spans of a recording anew, all in one pass.

        Args:
            spans: (start, end) in seconds for all samples, or a list of them for each sample. Spans are widened to whole
                frames of the codec.
            audio, sample_rate, ...: see `EditingMethods`.
        Raises:
            ValueError: a span is empty or outside of the recording.
        """
        job = self._job(audio, sample_rate, descriptions, negative_descriptions, seed, progress)
        length = job.audio.shape[-1] / job.sample_rate
        per_sample = read_spans(spans, len(job.audio), length)
        tokens = self._encode(job)
        clip = Clip.of(self.compression_model, tokens.shape[-1])
        kept = [masks.outside(own) if own else masks.everything() for own in per_sample]
        known = torch.cat([mask(clip) for mask in kept]).to(tokens.device)
        return self._edit(job, tokens, known, "inpaint", {"spans": per_sample})

    def extend(self, audio: torch.Tensor, sample_rate: int, before: float = 0.0, after: float = 0.0,
               descriptions: Descriptions = None, *, negative_descriptions: Negative = None, seed: Seed = None,
               progress: bool = False) -> Edit:
        """Generate what comes before and after a recording.

        Next to what is added, the outermost frame of the recording is generated too, for the cross-fade. If the last frame
        is not full and something is added after it, so is the frame before it, and the result ends with a full frame.

        Args:
            before, after: seconds to add, rounded up to whole frames of the codec.
            audio, sample_rate, ...: see `EditingMethods`.
        Raises:
            ValueError: nothing or more than a day is to be added, or the recording is shorter than three frames.
        """
        before, after = real("before", before), real("after", after)
        if min(before, after) < 0 or not 0 < before + after <= MAX_DURATION:
            raise ValueError(f"before={before} and after={after} must be at least 0 s, and together above 0 and at most "
                             f"{MAX_DURATION:g} s")
        job = self._job(audio, sample_rate, descriptions, negative_descriptions, seed, progress)
        tokens = self._encode(job)
        if tokens.shape[-1] < 3:
            raise ValueError(f"the recording has {tokens.shape[-1]} frames; extend needs at least 3")
        lead, trail = frames(before, self.frame_rate), frames(after, self.frame_rate)
        whole = F.pad(tokens, (lead, trail))
        known = torch.zeros_like(whole, dtype=torch.bool)
        # A last frame that is not full is generated anew, and so is the one before it: both ends need audio to fade from.
        partial = tokens.shape[-1] * codec_chunks.hop_length(self.compression_model) / self.sample_rate
        last = tokens.shape[-1] - (1 + (partial > job.audio.shape[-1] / job.sample_rate) if trail else 0)
        known[..., lead + (lead > 0):lead + last] = True
        return self._edit(job, whole, known, "extend", {"before": before, "after": after}, lead, trail)

    def vary(self, audio: torch.Tensor, sample_rate: int, strength: tp.Optional[float] = None,
             descriptions: Descriptions = None, *, preset: tp.Optional[str] = None,
             keep: tp.Optional[tp.Any] = None, negative_descriptions: Negative = None, seed: Seed = None,
             progress: bool = False) -> Edit:
        """Generate a variation of a recording.

        Args:
            strength: from 0, which keeps everything, to 1, which keeps nothing.
            preset: instead of a strength, the name of a mask: one of `keep.PRESETS`.
            keep: instead of them, a mask from `magnet_plugin.models.keep`, or Bool [B, K, T], [K, T] or [T] of the
                caller's own.
            audio, sample_rate, ...: see `EditingMethods`.
        Raises:
            ValueError: not exactly one of strength, preset and mask is given.
        """
        mask = _mask_of(strength, preset, keep)
        job = self._job(audio, sample_rate, descriptions, negative_descriptions, seed, progress)
        tokens = self._encode(job)
        known = mask(self._clip(job, tokens)).to(tokens.device)
        arguments = {"strength": strength, "preset": preset, "keep": None if keep is None else mask}
        return self._edit(job, tokens, known, "vary", {k: v for k, v in arguments.items() if v is not None},
                          merged=frames(_MERGED, self.frame_rate))

    def loop(self, audio: torch.Tensor, sample_rate: int, seam: float = 2.0, descriptions: Descriptions = None, *,
             negative_descriptions: Negative = None, seed: Seed = None, progress: bool = False) -> Edit:
        """Make a recording repeat without a seam: what surrounds its end and its start is generated anew.

        The recording is turned by half its length, the seam in its middle is filled in from both sides, and it is turned
        back, so that the result is as long as the recording.

        Args:
            seam: seconds to generate, half at the end and half at the start.
            audio, sample_rate, ...: see `EditingMethods`.
        Raises:
            ValueError: the seam is longer than half of the recording.
        """
        given = read_waveform(audio, sample_rate, self.audio_channels, "audio")
        samples, sample_rate = given.shape[-1], int(sample_rate)
        if not 0 < real("seam", seam) <= samples / sample_rate / 2:
            raise ValueError(f"seam={seam} s must be above 0 and at most half of the recording "
                             f"({samples / sample_rate / 2:.2f} s)")
        half = samples // 2
        middle = (samples - half) / sample_rate
        edit = self.inpaint(given.roll(-half, dims=-1), sample_rate, [(middle - seam / 2, middle + seam / 2)], descriptions,
                            negative_descriptions=negative_descriptions, seed=seed, progress=progress)
        arguments = {**edit.arguments, "seam": seam}
        del arguments["spans"]
        length = samples / sample_rate
        # A boundary half-way between two samples must be rounded before it is turned: afterwards it may round the other way.
        spans = [[part for start, end in own for part in turned(
            round(start * sample_rate) / sample_rate, round(end * sample_rate) / sample_rate, half / sample_rate, length)]
            for own in edit.spans]
        return dataclasses.replace(edit, audio=edit.audio.roll(half, dims=-1), spans=spans, method="loop",
                                   arguments=arguments)

    def _job(self, audio: tp.Any, sample_rate: int, descriptions: Descriptions, negative: Negative, seed: Seed,
             progress: bool) -> _Job:
        check_parallel_channels(self.compression_model, "editing")
        given = read_waveform(audio, sample_rate, self.audio_channels, "audio")
        if self._prompt_model is not None:
            raise ValueError("prompt_model generates the start of a clip and takes no part in editing; set "
                             "prompt_model=None in set_generation_params")
        texts = Texts.read(descriptions, len(given), negative)
        return _Job(given, int(sample_rate), texts, sample_seeds(seed, len(given)), progress)

    def _encode(self, job: _Job) -> torch.Tensor:
        """Encode the recording into as many frames as cover it."""
        hop = codec_chunks.hop_length(self.compression_model)
        count = frames(job.audio.shape[-1] / job.sample_rate, self.frame_rate)
        audio = convert_audio(job.audio, job.sample_rate, self.sample_rate, self.audio_channels)
        audio = F.pad(audio, (0, max((count - 1) * hop + 1 - audio.shape[-1], 0)))      # Resampling rounds down.
        return codec_chunks.encode(self.compression_model, audio.to(self.device))

    def _clip(self, job: _Job, tokens: torch.Tensor) -> Clip:
        return Clip.of(self.compression_model, tokens.shape[-1], len(tokens), job.audio, job.sample_rate)

    def _edit(self, job: _Job, tokens: torch.Tensor, known: torch.Tensor, method: str, arguments: dict[str, tp.Any],
              lead: int = 0, trail: int = 0, merged: int = 0) -> Edit:
        """Fill in what is not known and put it into the recording, with `lead` new frames before and `trail` after it."""
        filled = self._fill(KnownTokens(tokens, known), job.texts, job.seeds, job.progress)
        codec, rate = self.compression_model, float(self.frame_rate)
        before = round(lead / rate * job.sample_rate)
        samples = job.audio.shape[-1]
        length = round(tokens.shape[-1] / rate * job.sample_rate) if trail else before + samples
        margin, audio, spans = round(codec_chunks.MARGIN * rate), [], []
        for row, recording in enumerate(job.audio):
            canvas = Canvas(F.pad(recording, (before, length - before - samples)), job.sample_rate, before, before + samples)
            regions = regions_of((~known[row]).any(dim=0), merged)
            ends, starts = [0, *(r.stop for r in regions)], [*(r.start for r in regions[1:]), tokens.shape[-1]]
            for region, known_from, known_to in zip(regions, ends, starts):
                first, last = max(region.start - margin, known_from), min(region.stop + margin, known_to)
                piece = codec_chunks.decode(codec, filled[row:row + 1], first, last)[0]
                canvas.put(piece, self.sample_rate, first / rate, region.start / rate, region.stop / rate)
            audio.append(canvas.audio)
            spans.append([(region.start / rate, min(region.stop / rate, length / job.sample_rate)) for region in regions])
        texts = {"descriptions": list(job.texts.descriptions), "negative_descriptions": list(job.texts.negative) or None}
        return Edit(torch.stack(audio), job.sample_rate, filled, known, spans, job.seeds, method, {**arguments, **texts},
                    settings(self))


def _mask_of(strength: tp.Optional[float], preset: tp.Optional[str], mask: tp.Any) -> Keep:
    given = [value for value in (strength, preset, mask) if value is not None]
    if len(given) != 1:
        raise ValueError("give one of strength=, preset= and keep=")
    if strength is not None:
        return masks.strength(real("strength", strength))
    if preset is not None:
        if preset not in masks.PRESETS:
            raise ValueError(f"preset={preset!r} is unknown; choose one of {', '.join(masks.PRESETS)}")
        return masks.PRESETS[preset]
    try:
        return mask if isinstance(mask, Keep) else masks.tokens(mask)
    except TypeError:
        raise ValueError(f"keep={mask!r} must be a mask from magnet_plugin.models.keep, or Bool [B, K, T]") from None
