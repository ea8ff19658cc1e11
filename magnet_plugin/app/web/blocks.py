"""The page: its tabs, the clips below them, and what happens when something is pressed."""
import typing as tp
from pathlib import Path

from . import edit_tab, generate_tab, views
from .edits import METHODS
from .fields import Fields
from .gradio_import import import_gradio
from .requests import FROM_FILE, read_seed
from .studio import Studio
from .theme import mount
from .visitors import Visitor

TITLE = "MAGNeT"
INTRO = "Music from text by masked parallel decoding. Describe it, compare candidates, and edit any part of them."
ACTIONS = {"inpaint": "Replace the marked regions", "extend": "Extend", "vary": "Vary", "loop": "Make a loop"}
#: The fields that the settings of a clip fill in.
LOADED = ("loaded", "preset", "text", "negative", "seed", "locked", "temperature", "guidance", "top_p")
#: Settings of all events: nothing for API clients, and no overlays. Only long ones use Gradio's queue, whose stream of
#: messages can end just before the next event needs it.
QUIET: dict[str, tp.Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


class Page:
    """The page of a studio.

    Args:
        studio: the model and the visitors.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio, self.gr = studio, import_gradio(studio.uploads)
        gr = self.gr
        with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as self.blocks:
            self.visitor = gr.State(None, delete_callback=studio.visitors.close)
            gr.HTML(f'<header class="mg-header"><h1>{TITLE}</h1><p>{INTRO}</p></header>')
            with gr.Tabs(selected="generate", elem_id="mg-tabs") as self.tabs:
                with gr.Tab("Generate", id="generate", elem_id="mg-tab-generate"):
                    self.generate = generate_tab.build(gr, studio)
                with gr.Tab("Edit", id="edit", elem_id="mg-tab-edit", render_children=True):
                    self.edit, self.own = edit_tab.build(gr, studio)
            self.shelf = gr.HTML(views.shelf(None), html_template='<div class="mg-shelf"></div>', elem_id="mg-shelf",
                                 apply_default_css=False,
                                 js_on_load=mount("shelf", "use", "favourite", "remove", "clear"))
            self._connect()
        self.blocks.queue(max_size=None, default_concurrency_limit=None, api_open=False)

    def _connect(self) -> None:
        edit = self.edit.inputs
        self.blocks.load(self.studio.visitors.open, None, self.visitor, **QUIET)
        self._connect_tab(self.generate, self._start_generate)
        self._connect_tab(self.edit, self._start_edit)
        for name in ("favourite", "remove", "clear"):
            getattr(self.shelf, name)(self._change(name), self.visitor, self.shelf, **QUIET)
        opened = [self.own["editor"], edit["regions"], self.edit.message, self.tabs]
        self.shelf.use(self._use(), [self.visitor, edit["method"]], opened, **QUIET)
        self.own["upload"].upload(self._upload, [self.visitor, self.own["upload"], edit["method"]],
                                  [*opened[:3], self.own["upload"]], **QUIET)
        edit["method"].change(self._method, [self.visitor, edit["method"]],
                              [self.own["editor"], self.edit.run, *self.own["rows"].values()], **QUIET)
        changing = [edit[name] for name in edit_tab.OWN]
        for event in [*(field.change for field in changing), self.own["editor"].change]:
            event(self._mask, {self.visitor, *changing}, self.own["mask"], trigger_mode="always_last", **QUIET)

    def _connect_tab(self, fields: Fields, start: tp.Callable[..., tp.Any]) -> None:
        outputs = [self.shelf, fields.message, fields.run, fields.cancel, fields.inputs["seed"]]
        fields.run.click(self._follow(fields, start), {self.visitor, *fields.inputs.values()}, outputs,
                         concurrency_limit=None, **{**QUIET, "queue": True})
        fields.cancel.click(self._cancel, self.visitor, fields.message, **QUIET)
        inputs = fields.inputs
        loaded = [inputs[name] for name in LOADED]
        fields.load.upload(self._load, fields.load, [*loaded, fields.message], **QUIET)

    def _follow(self, fields: Fields, start: tp.Callable[..., tp.Any]) -> tp.Callable[..., tp.Any]:
        """Return the handler of a tab's main button, which shows how the work goes on until its end."""
        gr = self.gr

        def run(data: tp.Any) -> tp.Iterator[tp.Any]:
            visitor: tp.Optional[Visitor] = data[self.visitor]
            values = {name: data[field] for name, field in fields.inputs.items()}
            busy, idle = (gr.Button(interactive=False), gr.Button(interactive=True)), (
                gr.Button(interactive=True), gr.Button(interactive=False))
            try:
                visitor = self._known(visitor)
                seed = read_seed(values["seed"], values["locked"])
                job = start(visitor, values, seed)
                yield views.shelf(visitor, job), views.message("starting"), *busy, seed
                for ahead in self.studio.queue.watch(job):
                    yield views.shelf(visitor, job, ahead), views.waiting(ahead, job), gr.skip(), gr.skip(), gr.skip()
                yield views.shelf(visitor), views.message("done", "done"), *idle, gr.skip()
            except GeneratorExit:
                raise
            except BaseException as error:
                yield views.shelf(visitor), views.failure(error), *idle, gr.skip()

        return run

    def _known(self, visitor: tp.Optional[Visitor]) -> Visitor:
        if visitor is None or not visitor.folder.is_dir():
            raise ValueError("this page has been open for too long, or the app was started again; reload the page")
        return visitor

    def _start_generate(self, visitor: Visitor, values: dict[str, tp.Any], seed: int) -> tp.Any:
        return generate_tab.start(self.studio, visitor, seed=seed, **{
            name: value for name, value in values.items() if name not in ("seed", "locked")})

    def _start_edit(self, visitor: Visitor, values: dict[str, tp.Any], seed: int) -> tp.Any:
        return edit_tab.start(self.studio, visitor, values, seed)

    def _cancel(self, visitor: tp.Optional[Visitor]) -> str:
        if visitor is not None and visitor.job is not None:
            visitor.job.cancel()
        return views.message("cancelling after this step")

    def _change(self, action: str) -> tp.Callable[..., tp.Any]:
        """Return the handler of an action on the visitor's clips."""
        def change(visitor: tp.Optional[Visitor], event: tp.Any) -> dict[str, tp.Any]:
            if visitor is not None and action == "clear":
                visitor.clear()
            elif visitor is not None:
                for take in [take for take in visitor.takes if take.id == (event._data or {}).get("id")]:
                    if action == "remove":
                        visitor.remove(take)
                    else:
                        take.favourite = not take.favourite
            return views.shelf(visitor, None if visitor is None else visitor.job)

        change.__annotations__["event"] = self.gr.EventData
        return change

    def _use(self) -> tp.Callable[..., tp.Any]:
        """Return the handler that makes a clip the recording to edit."""
        def use(visitor: tp.Optional[Visitor], method: str, event: tp.Any) -> tp.Any:
            try:
                edit_tab.open_take(self.studio, self._known(visitor), (event._data or {}).get("id"))
                said = ""
            except Exception as error:
                said = views.failure(error)
            return edit_tab.editor_view(visitor, method), "", said, self.gr.Tabs(selected="edit")

        use.__annotations__["event"] = self.gr.EventData
        return use

    def _upload(self, visitor: tp.Optional[Visitor], path: tp.Optional[str], method: str) -> tp.Any:
        """Make an uploaded file the recording to edit; the upload itself is deleted."""
        try:
            edit_tab.open_upload(self.studio, self._known(visitor), path)
            said = ""
        except Exception as error:
            said = views.failure(error)
        finally:
            if path:
                Path(path).unlink(missing_ok=True)
        return edit_tab.editor_view(visitor, method), "", said, None

    def _method(self, visitor: tp.Optional[Visitor], method: str) -> tp.Any:
        rows = [self.gr.Row(visible=method == name) for name in self.own["rows"]]
        method = method if method in METHODS else "inpaint"
        return edit_tab.editor_view(visitor, method), self.gr.Button(ACTIONS[method]), *rows

    def _mask(self, data: tp.Any) -> tp.Any:
        """Show the mask of the edit; nothing while the fields are incomplete."""
        visitor = data[self.visitor]
        try:
            values = {name: data[self.edit.inputs[name]] for name in edit_tab.OWN}
            return edit_tab.show_mask(self.studio, self._known(visitor), values)
        except Exception:
            return None

    def _load(self, path: tp.Any) -> tp.Any:
        """Fill in the settings of a clip."""
        gr = self.gr
        try:
            metadata, loaded = generate_tab.load_settings(path, self.studio.limits)
        except Exception as error:
            return [gr.skip()] * len(LOADED) + [views.failure(error)]
        said = generate_tab.loaded_message(Path(path).name, metadata)
        seed = metadata.get("seed")
        return [loaded, FROM_FILE, str(metadata.get("text") or ""), str(metadata.get("negative") or ""),
                seed if isinstance(seed, int) and seed >= 0 else gr.skip(), True, None, None, None, said]
