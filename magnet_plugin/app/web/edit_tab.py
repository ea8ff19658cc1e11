"""The tab Edit: replace, extend, vary and loop parts of a recording that are marked on its waveform."""
import dataclasses
import functools
import shutil
import typing as tp
from pathlib import Path

from . import making, views
from .edits import LIKE_STRENGTH, METHODS, SINGLE, Edit, read_edit
from .fields import Fields, decoding_fields
from .masks import picture
from .recordings import read_recording
from .requests import Decoding, Order
from .studio import Studio
from .theme import mount
from .visitors import Visitor

VARIATIONS = (("By strength", LIKE_STRENGTH), ("Small", "small"), ("Medium", "medium"), ("Large", "large"),
              ("Other instrument", "timbre"), ("Keep the beat", "beat"))
HINT = "Upload a recording, or choose Edit at one of your clips."
OWN = ("method", "regions", "before", "after", "variation", "strength", "seam")


def plan(studio: Studio, visitor: Visitor, values: tp.Mapping[str, tp.Any]) -> Edit:
    """Check the edit that the fields describe; raises ValueError."""
    own = {name: values[name] for name in OWN}
    return read_edit(own.pop("method"), visitor.source, own.pop("regions"), studio.limits, **own)


def start(studio: Studio, visitor: Visitor, values: tp.Mapping[str, tp.Any], seed: int) -> tp.Any:
    """Check a request and put it into the queue; returns its job.

    Raises:
        ValueError: something in it is invalid; the message names it.
    """
    decoding = Decoding.read(values["preset"], values["loaded"], temperature=values["temperature"],
                             max_cfg_coef=values["guidance"], top_p=values["top_p"])
    text = " ".join(str(values["text"] or "").split())
    order = Order.read(text, values["negative"], values["count"], seed, decoding, studio.limits)
    edit = plan(studio, visitor, values)
    studio.model.with_generation_params(**decoding.arguments(studio.model))                        # Checks the rest.
    return studio.start(visitor, functools.partial(making.edit, studio.model, order, edit, visitor))


def show_mask(studio: Studio, visitor: Visitor, values: tp.Mapping[str, tp.Any]) -> dict[str, tp.Any]:
    """Describe what an edit would keep; raises ValueError."""
    edit = plan(studio, visitor, values)
    return picture(edit.mask(studio.model.compression_model), float(studio.model.frame_rate))


def open_upload(studio: Studio, visitor: Visitor, path: tp.Any) -> None:
    """Make an uploaded file the recording that is edited; raises ValueError."""
    import soundfile
    recording = read_recording(Path(str(path)), studio.limits)
    name = f"{visitor.new_name()}.source.wav"
    soundfile.write(visitor.folder / name, recording.audio.T, recording.sample_rate)
    visitor.source = dataclasses.replace(recording, url=views.url(visitor, name))


def open_take(studio: Studio, visitor: Visitor, identifier: tp.Any) -> None:
    """Make a clip the recording that is edited; raises ValueError."""
    take = visitor.take(identifier)
    name = f"{visitor.new_name()}.source.wav"
    shutil.copyfile(visitor.folder / take.audio, visitor.folder / name)
    recording = read_recording(visitor.folder / name, studio.limits, take.audio)
    visitor.source = dataclasses.replace(recording, url=views.url(visitor, name))


def editor_view(visitor: tp.Optional[Visitor], method: str) -> dict[str, tp.Any]:
    """Describe the waveform editor."""
    source = None if visitor is None else visitor.source
    shown = {"single": method in SINGLE, "hint": METHODS[method][1] if source else HINT}
    if source is None:
        return {**shown, "url": None}
    return {**shown, "url": source.url, "name": source.name, "seconds": round(source.seconds, 3)}


def build(gr: tp.Any, studio: Studio) -> tuple[Fields, dict[str, tp.Any]]:
    """Build the tab; returns its fields, and the components that only this tab has."""
    upload = gr.File(label=f"A recording: WAV, FLAC, OGG or MP3, up to {studio.limits.max_seconds:g} s and "
                           f"{studio.limits.max_upload_mb:g} MB", file_types=[".wav", ".flac", ".ogg", ".mp3"],
                     elem_id="mg-upload", height=150)
    editor = gr.HTML(editor_view(None, "inpaint"), html_template='<div class="mg-editor"></div>', elem_id="mg-editor",
                     js_on_load=mount("editor"),
                     apply_default_css=False)
    with gr.Row():
        method = gr.Radio([(name, key) for key, (name, _) in METHODS.items()], value="inpaint", label="What to do",
                          elem_id="mg-method", scale=2, min_width=260)
        regions = gr.Textbox(label="Regions in seconds", elem_id="mg-regions", placeholder="drag over the waveform, or type "
                             "1.5-3, 4-5", scale=1, min_width=200)
    with gr.Row(visible=False) as extending:
        before = gr.Number(value=0, minimum=0, label="Seconds before", elem_id="mg-before", min_width=130)
        after = gr.Number(value=3, minimum=0, label="Seconds after", elem_id="mg-after", min_width=130)
    with gr.Row(visible=False) as varying:
        variation = gr.Dropdown(list(VARIATIONS), value=LIKE_STRENGTH, label="Variation", elem_id="mg-variation",
                                filterable=False, min_width=160)
        strength = gr.Slider(0, 1, value=0.5, step=0.05, label="Strength", elem_id="mg-strength", buttons=[],
                             info="0 keeps everything, 1 keeps nothing.", min_width=200)
    with gr.Row(visible=False) as looping:
        seam = gr.Number(value=2, minimum=0.1, label="Seam in seconds", info="Half of it at the end, half at the start.",
                         elem_id="mg-seam", min_width=160)
    with gr.Row():
        text = gr.Textbox(label="Describe the new part", lines=1, elem_id="mg-edit-text", placeholder="optional", scale=3,
                          min_width=240)
        count = gr.Slider(1, min(4, studio.limits.max_clips), value=1, step=1, label="Candidates", elem_id="mg-edit-count",
                          buttons=[], scale=1, min_width=150)
    mask = gr.HTML(None, html_template='<div class="mg-mask"></div>', elem_id="mg-mask", apply_default_css=False,
                   js_on_load=mount("maskView"))
    own = {"method": method, "regions": regions, "before": before, "after": after, "variation": variation,
           "strength": strength, "seam": seam, "text": text, "count": count}
    fields = decoding_fields(gr, "edit", own, action="Replace the marked regions",
                             best=("Best for editing", "edit"))
    return fields, {"upload": upload, "editor": editor, "mask": mask, "rows": {"extend": extending, "vary": varying,
                                                                              "loop": looping}}
