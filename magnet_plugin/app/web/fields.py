"""Fields that both tabs have: seed, preset, further settings, the buttons, and the message below them."""
import typing as tp

from .requests import FROM_FILE

PRESETS = (("The paper's settings", "paper"), ("Fast: half the steps", "fast"),
           ("Draft: a quarter of the steps", "draft"), ("From a loaded clip", FROM_FILE))


class Fields(tp.NamedTuple):
    """The components of a tab.

    Attributes:
        inputs: by the names of arguments.
        run, cancel: the buttons.
        load: the button that uploads a clip whose settings are used.
        message: what happens, or went wrong.
    """
    inputs: dict[str, tp.Any]
    run: tp.Any
    cancel: tp.Any
    load: tp.Any
    message: tp.Any


def decoding_fields(gr: tp.Any, tab: str, own: dict[str, tp.Any], action: str, best: tuple[str, str]) -> Fields:
    """Build the fields below a tab's own ones; `best` is its default preset, a label and a name."""
    with gr.Row(elem_classes="mg-choices"):
        preset = gr.Dropdown([best, *PRESETS], value=best[1], label="Quality", elem_id=f"mg-{tab}-preset", filterable=False,
                             min_width=180)
        seed = gr.Number(value=1, precision=0, minimum=0, label="Seed", elem_id=f"mg-{tab}-seed", min_width=120)
        locked = gr.Checkbox(value=False, label="Keep this seed", elem_id=f"mg-{tab}-locked", min_width=140,
                             elem_classes="mg-lock")
    with gr.Accordion("More settings", open=False, elem_classes="mg-more"):
        negative = gr.Textbox(label="What it should not be", elem_id=f"mg-{tab}-negative", lines=1,
                              placeholder="for example: drums")
        with gr.Row():
            temperature = gr.Number(value=None, label="Temperature", elem_id=f"mg-{tab}-temperature", min_width=110,
                                    placeholder="of the preset", info="Higher is more surprising.")
            guidance = gr.Number(value=None, label="Guidance", elem_id=f"mg-{tab}-guidance", min_width=110,
                                 placeholder="of the preset", info="Higher follows the text more closely.")
            top_p = gr.Number(value=None, label="Top-p", elem_id=f"mg-{tab}-top-p", min_width=110,
                              placeholder="of the preset", info="From 0 to 1; lower is safer.")
        load = gr.UploadButton("Load the settings of a clip …", file_types=[".wav", ".flac", ".ogg", ".mp3", ".json"],
                               size="sm", variant="secondary", elem_id=f"mg-{tab}-load")
    loaded = gr.State(None)
    with gr.Row(elem_classes="mg-actions"):
        run = gr.Button(action, variant="primary", elem_id=f"mg-{tab}-run", scale=3, min_width=140)
        cancel = gr.Button("Cancel", variant="stop", elem_id=f"mg-{tab}-cancel", scale=1, min_width=90, interactive=False)
    message = gr.HTML("", elem_id=f"mg-{tab}-message", elem_classes="mg-messages")
    inputs = {**own, "negative": negative, "seed": seed, "locked": locked, "preset": preset, "loaded": loaded,
              "temperature": temperature, "guidance": guidance, "top_p": top_p}
    return Fields(inputs, run, cancel, load, message)
