"""Recordings to edit, and what holds for every edit of them."""
import dataclasses
import json
import math
import typing as tp

import torch
from audiocraft.data.audio_utils import convert_audio
from hypothesis import strategies as st

from magnet_plugin import MAGNeT
from magnet_plugin.app.clip_settings import arguments_of
from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.models.edit import Edit

from .toy_codec import ToyCodec
from .toy_magnets import WAYS

RATE, FRAMES = 800, 50                                          # the toy codec's
SAMPLE_RATES = (800, 1100, 441)


@dataclasses.dataclass(repr=False)
class Recording:
    """Audio [B, C, samples] and its sample rate."""
    audio: torch.Tensor
    rate: int

    def __repr__(self) -> str:
        return f"{list(self.audio.shape)} at {self.rate} Hz"

    @property
    def seconds(self) -> float:
        return self.audio.shape[-1] / self.rate

    @property
    def frames(self) -> int:
        return math.ceil(round(self.seconds * FRAMES, 6))


def noise(samples: int, rate: int = RATE, batch: int = 1, channels: int = 1, seed: int = 0) -> Recording:
    """Each sample and channel has noise of its own."""
    return Recording(torch.randn(batch, channels, samples, generator=torch.Generator().manual_seed(seed)) * 0.3, rate)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """Noise of four frames up to two and a half windows."""
    rate = draw(st.sampled_from(SAMPLE_RATES))
    seconds = draw(st.sampled_from([0.1, 0.5, 1.0, 1.7, 2.5]))
    samples = max(round(seconds * rate) + draw(st.integers(-9, 9)), 4 * rate // FRAMES)
    return noise(samples, rate, draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 99)))


def spans_of(seconds: float) -> st.SearchStrategy[list[tuple[float, float]]]:
    times = st.integers(0, int(seconds * 1000)).map(lambda time: time / 1000)
    return st.lists(st.tuples(times, times).filter(lambda span: span[0] < span[1]), min_size=1, max_size=3)


def copied(part: KnownTokens) -> KnownTokens:
    return KnownTokens(part.tokens.clone(), part.known.clone())


def encoded(model: MAGNeT, recording: Recording) -> torch.Tensor:
    """The tokens of a recording that may have become a sample shorter when it was resampled."""
    audio = convert_audio(recording.audio, recording.rate, RATE, model.audio_channels)
    tokens = model.compression_model.encode(audio)[0]
    if tokens.shape[-1] < recording.frames:
        tokens = torch.cat([tokens, model.compression_model.encode(torch.zeros_like(audio[..., :1]))[0]], dim=-1)
    return tokens


def check(model: MAGNeT, recording: Recording, edit: Edit, offset: int = 0, start: int = 0) -> None:
    """Check what holds for every edit.

    Args:
        model, recording, edit: the model, what was edited, and the result.
        offset: samples that were added before the recording.
        start: frames that were added before it.
    """
    audio, rate = recording.audio, recording.rate
    batch, channels, samples = audio.shape
    assert edit.audio.dtype == torch.float32 and edit.audio.isfinite().all() and edit.sample_rate == rate
    assert edit.audio.shape[:2] == (batch, channels)
    assert edit.tokens.min() >= 0 and edit.tokens.max() < ToyCodec.CARD
    source = torch.full_like(edit.tokens, -1)
    source[..., start:start + recording.frames] = encoded(model, recording)
    assert torch.equal(edit.tokens[edit.known], source[edit.known]), "known tokens are kept"
    for row, spans in enumerate(edit.spans):
        untouched = torch.ones(edit.audio.shape[-1], dtype=torch.bool)
        for first, last in spans:
            untouched[round(first * rate):round(last * rate)] = False
        expected = torch.zeros(channels, edit.audio.shape[-1])
        expected[:, offset:offset + samples] = audio[row]
        assert torch.equal(edit.audio[row][:, untouched], expected[:, untouched]), "untouched samples are kept bit for bit"
        free = (~edit.known[row]).any(dim=0)
        for frame in free.nonzero()[:, 0].tolist():
            assert any(round(first * FRAMES) <= frame < last * FRAMES for first, last in spans), "free frames are in spans"


def again(model: MAGNeT, recording: Recording, edit: Edit, rows: tp.Sequence[int]) -> Edit:
    """Make some samples of an edit again from its own fields, which have been in a JSON file where they are plain."""
    fields = {"arguments": {**edit.arguments, "keep": None}, "seeds": edit.seeds, "settings": edit.settings}
    stored = json.loads(json.dumps(fields))
    arguments, seeds = stored["arguments"], stored["seeds"]
    arguments = {**arguments, "keep": edit.arguments["keep"]} if "keep" in edit.arguments else arguments
    arguments = {name: value for name, value in arguments.items() if name != "keep" or value is not None}
    if len(rows) < len(seeds):
        for name in ("descriptions", "negative_descriptions", "spans"):
            if arguments.get(name) is not None:
                arguments[name] = [arguments[name][row] for row in rows]
        seeds = [seeds[row] for row in rows]
    params = arguments_of(stored["settings"])
    if params.get("rescorer"):
        params["rescorer"] = WAYS["rescored"][1]["rescorer"]
    own = model.with_generation_params(**params)
    return getattr(own, edit.method)(recording.audio[list(rows)], edit.sample_rate, **arguments, seed=seeds)


def check_again(model: MAGNeT, recording: Recording, edit: Edit, alone: bool = True) -> None:
    """Check that an edit can be made again bit for bit, and each of its samples alone."""
    batch = len(recording.audio)
    edited = [row for row in range(batch) if edit.spans[row]] if alone and batch > 1 else []
    for rows in [list(range(batch)), *([row] for row in edited)]:
        other = again(model, recording, edit, rows)
        assert torch.equal(other.tokens, edit.tokens[rows]) and torch.equal(other.audio, edit.audio[rows])
        assert other.spans == [edit.spans[row] for row in rows] and torch.equal(other.known, edit.known[rows])
        assert other.method == edit.method and (len(rows) < batch or other.settings == edit.settings)


def texts_of(texts: tp.Optional[tp.Sequence[tp.Optional[str]]], batch: int) -> dict[str, tp.Any]:
    return {"descriptions": None if texts is None else list(texts[:batch]),
            "negative_descriptions": None if texts is None else "noise"}
