"""From a request to finished clips: runs the model, reports each step, and writes the files of each clip."""
import json
import math
import time
import typing as tp

import numpy as np
import soundfile
import torch

from ... import __version__
from ...models.magnet import MAGNeT
from ...models.settings import settings
from .. import clips
from .edits import METHODS, Edit
from .jobs import Job
from .masks import StepRecorder, picture
from .pictures import save_spectrogram
from .requests import Order
from .visitors import Take, Visitor

LIVE = 0.15             # seconds between two masks that are shown while a clip is decoded


class _Attempt:
    """One clip in the making: its model, whose steps are recorded and whose progress is reported to a job.

    Args:
        model: the loaded model.
        params: generation parameters.
        job: the job.
        label: what the clip is called meanwhile.
    """

    def __init__(self, model: MAGNeT, params: dict[str, tp.Any], job: Job, label: str) -> None:
        job.begin(label)
        self.job, self.recorder, self._shown = job, StepRecorder(), 0.0
        self.model = model.with_generation_params(**params)
        self.model.on_step = self._on_step
        self.model.set_custom_progress_callback(job.progress)
        self.started = time.perf_counter()

    def _on_step(self, step: tp.Any, masked: torch.Tensor) -> None:
        self.recorder(step, masked)
        if time.monotonic() - self._shown > LIVE:
            self._shown = time.monotonic()
            self.job.part = {**self.job.part, "frames": masked.shape[-1], "codebooks": self.model.lm.n_q,
                             "frame_rate": float(self.model.frame_rate), "step": self.recorder.steps[-1]}

    @property
    def took(self) -> float:
        """Seconds since the start."""
        return round(time.perf_counter() - self.started, 3)


def generate(model: MAGNeT, order: Order, duration: float, visitor: Visitor, job: Job) -> None:
    """Generate the clips of an order, one after another."""
    for index, text in enumerate(order.texts):
        seed = order.seed + index
        attempt = _Attempt(model, order.decoding.arguments(model, duration=duration), job, _label(text, index, order))
        name = visitor.new_name()
        common: dict[str, tp.Any] = {"progress": True, "return_tokens": True, "seed": seed}
        if text is None:
            wav, tokens = attempt.model.generate_unconditional(1, **common)
        else:
            window = _growing(visitor, job, name, model.sample_rate, duration)
            wav, tokens = attempt.model.generate([text], negative_descriptions=order.negative, on_window=window, **common)
        metadata = {"command": "generate", "text": text, "negative": order.negative, "seed": seed,
                    "tokens": clips.digest(tokens), clips.TOOK: attempt.took, "plugin": __version__,
                    "settings": settings(attempt.model)}
        known = torch.zeros(tokens.shape[1:], dtype=torch.bool)
        _finish(visitor, name, attempt, wav[0], model.sample_rate, metadata, known, text or "Without a text", "Generated")


def edit(model: MAGNeT, order: Order, plan: Edit, visitor: Visitor, job: Job) -> None:
    """Make the variants of an edit, one after another."""
    source = plan.recording.name
    for index, text in enumerate(order.texts):
        seed = order.seed + index
        params = order.decoding.arguments(model)
        params.pop("duration", None)
        attempt = _Attempt(model, params, job, _label(text or source, index, order))
        name = visitor.new_name()
        made = plan.call(attempt.model, descriptions=None if text is None else [text], seed=seed, progress=True,
                         negative_descriptions=order.negative)
        metadata = {"command": plan.method, "source": source, "text": text, "negative": order.negative, "seed": seed,
                    "arguments": plan.arguments, "spans": made.spans[0], "tokens": clips.digest(made.tokens),
                    clips.TOOK: attempt.took, "plugin": __version__, "settings": made.settings}
        _finish(visitor, name, attempt, made.audio[0], made.sample_rate, metadata, made.known[0], text or source,
                f"{METHODS[plan.method][0]} · {source}", scale=False)


def _label(text: tp.Optional[str], index: int, order: Order) -> str:
    count = len(order.texts)
    return f"{f'{index + 1} of {count}: ' if count > 1 else ''}{text or 'without a text'}"


def _growing(visitor: Visitor, job: Job, name: str, sample_rate: int, duration: float
             ) -> tp.Callable[[torch.Tensor, float], None]:
    """Return a callback that shows what is finished of a long clip."""
    pieces: list[np.ndarray] = []

    def on_window(audio: torch.Tensor, start: float) -> None:
        pieces.append(audio[0].float().cpu().numpy())
        whole = np.concatenate(pieces, axis=-1)
        seconds = whole.shape[-1] / sample_rate
        if seconds < duration - 0.1:
            path = visitor.folder / f"{name}.part{len(pieces)}.wav"
            soundfile.write(path, (whole / max(1.0, float(np.abs(whole).max()))).T, sample_rate)
            job.part = {**job.part, "audio": path.name, "seconds": seconds}

    return on_window


def _finish(visitor: Visitor, name: str, attempt: _Attempt, wav: torch.Tensor, sample_rate: int,
            metadata: dict[str, tp.Any], known: torch.Tensor, title: str, note: str, scale: bool = True) -> None:
    """Write the files of a clip [channels, samples] and hand it to the visitor."""
    folder, audio = visitor.folder, wav.float().cpu().numpy()
    rate = float(attempt.model.frame_rate)
    if not math.isfinite(float(np.abs(audio).max(initial=0))):
        raise ValueError("the audio has samples that are not finite; choose a lower guidance")
    steps, spectrogram = folder / f"{name}.steps.json", folder / f"{name}.png"
    steps.write_text(json.dumps(picture(known, rate, attempt.recorder.steps)))
    save_spectrogram(spectrogram, audio, sample_rate)
    clips.save_clip(folder / f"{name}.wav", audio, sample_rate, metadata, scale=scale)
    for part in folder.glob(f"{name}.part*"):
        part.unlink()
    visitor.add(Take(f"{name}.wav", {"settings": f"{name}.json", "spectrogram": spectrogram.name, "steps": steps.name},
                     title, f"{note} in {len(attempt.recorder.steps)} steps and {metadata[clips.TOOK]:.1f} s",
                     metadata["seed"], audio.shape[-1] / sample_rate))
