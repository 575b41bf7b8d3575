"""The page, in gradio: what a person sees, and which request each button makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, no_type_check

import gradio as gr

from lgm.app import markup
from lgm.app.backgrounds import AUTO, CHOICES
from lgm.app.parts import Examples, GeneratorTab, four_images, generator_tab
from lgm.app.sessions import OBJECT, Progress, Sessions
from lgm.app.studio import MESH, PLY, VIDEO

TITLE = "LGM: images to 3D"
# Of every event: none is a public API, none waits for another, and how far it is stands in the page.
_EVENT: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
# On a phone what follows is far below the button.
_SHOW_STATUS = """() => {
  if (innerWidth < 800) document.getElementById("status").scrollIntoView({ behavior: "smooth" });
}"""

Updates = Iterator[dict[Any, Any]]


class Page:
    """Builds the page; `blocks` is it.

    examples: views of objects by name, each by `SIDES`. note: a line of what is at work, e.g. the weights.
    """

    def __init__(self, sessions: Sessions, examples: Examples, note: str) -> None:
        self._sessions = sessions
        with gr.Blocks(title=TITLE, analytics_enabled=False) as self.blocks:
            self._object = gr.BrowserState("", storage_key="lgm-object")
            self._generated = gr.BrowserState("", storage_key="lgm-views")
            gr.Markdown(f"# Images to a 3D object\n{note}")
            with gr.Row():
                with gr.Column(scale=3, min_width=320):
                    with gr.Tabs():
                        with gr.Tab("Four images"):
                            self._four = four_images(examples)
                        with gr.Tab("One image"):
                            self._from_image = generator_tab("image", examples)
                        with gr.Tab("Text"):
                            self._from_text = generator_tab("text", {})
                    self._background = gr.Dropdown(
                        [(text, name) for name, text in CHOICES.items()],
                        value=AUTO,
                        label="Background of images without transparency",
                        elem_id="background",
                    )
                with gr.Column(scale=2, min_width=320):
                    self._status = gr.HTML(elem_id="status")
                    self._viewer = gr.HTML(markup.EMPTY, elem_id="viewer")
                    with gr.Row():
                        self._film = gr.Button("Make a turntable (.mp4)", interactive=False, elem_id="film")
                        self._mesh = gr.Button("Make a mesh (.glb)", interactive=False, elem_id="mesh")
                    self._files = gr.HTML(elem_id="files")
            self._connect()
        # Requests wait in a queue of our own, whose limit has a message; gradio's must not be in its way.
        self.blocks.queue(default_concurrency_limit=None, max_size=200, api_open=False)

    @property
    def _tabs(self) -> tuple[GeneratorTab, GeneratorTab]:
        return self._from_image, self._from_text

    @property
    def _buttons(self) -> list[gr.Button]:
        makes = [views.make for views in (self._four, *(tab.views for tab in self._tabs))]
        return [*makes, *(tab.generate for tab in self._tabs), self._film, self._mesh]

    def _connect(self) -> None:
        shown = [self._object, self._status, self._viewer, self._files, *self._buttons]
        four = self._four
        four.make.click(_streamed(self._reconstruct), [*four.slots, self._background], shown, **_EVENT)
        for tab in self._tabs:
            tab.views.make.click(
                _streamed(self._reconstruct),
                [*tab.views.slots, self._background, self._generated],
                shown,
                **_EVENT,
            )
            prompt = [self._object, tab.text, tab.seed, self._background, *([tab.image] if tab.image else [])]
            made = [self._generated, self._status, tab.group, *tab.views.slots, *self._buttons]
            tab.generate.click(_streamed(self._generate(tab)), prompt, made, **_EVENT)
        for button in (
            four.make,
            *(tab.views.make for tab in self._tabs),
            *(tab.generate for tab in self._tabs),
        ):
            button.click(None, js=_SHOW_STATUS, api_visibility="private")
        further = [self._status, self._files, *self._buttons]
        self._film.click(_streamed(self._further(self._sessions.film)), [self._object], further, **_EVENT)
        self._mesh.click(_streamed(self._further(self._sessions.mesh)), [self._object], further, **_EVENT)
        slots = [part for tab in self._tabs for part in (tab.group, *tab.views.slots)]
        kept = [self._generated, self._status, *slots, *self._buttons]
        hints = [part for tab in self._tabs for part in (tab.hint, tab.generate)]
        self.blocks.load(self._hints, None, hints, **_EVENT)
        self.blocks.load(_streamed(self._resume_views), [self._object, self._generated], kept, **_EVENT)
        self.blocks.load(_streamed(self._resume_object), [self._object], shown, **_EVENT)

    # -- requests: each yields what changes in the page ------------------------------------------------------

    def _reconstruct(self, *inputs: Any) -> Updates:
        slots, background, *generated = inputs[:4], *inputs[4:]
        yield self._busy() | {self._viewer: markup.EMPTY, self._files: ""}
        for progress in self._sessions.reconstruct(slots, background, *generated):
            yield self._object_updates(progress)

    def _generate(self, tab: GeneratorTab) -> Callable[..., Updates]:
        def generate(token: Any, text: Any, seed: Any, background: Any, image: Any = None) -> Updates:
            yield self._busy()
            for progress in self._sessions.generate(tab.kind, text, seed, image, background):
                yield self._views_updates(tab, progress, token)

        return generate

    def _further(self, request: Callable[[Any], Iterator[Progress]]) -> Callable[[Any], Updates]:
        def further(token: Any) -> Updates:
            yield self._busy()
            for progress in request(token):
                yield self._file_updates(progress)

        return further

    def _resume_views(self, token: Any, generated: Any) -> Updates:
        """A page that was loaded again goes on where it was."""
        yield {self._status: ""}  # of a generator that yields nothing gradio would empty everything
        for progress in self._sessions.resume(generated):
            if tab := next((tab for tab in self._tabs if tab.kind == progress.kind), None):
                yield self._views_updates(tab, progress, token)

    def _resume_object(self, token: Any) -> Updates:
        """The same of an object and its further files. Apart from the views: whatever follows an image in one
        stream takes the button away that removes it."""
        yield {self._status: ""}
        for progress in self._sessions.resume(token):
            if progress.kind == OBJECT:
                yield self._object_updates(progress)
            else:
                yield {self._viewer: markup.viewer(progress.token)} | self._file_updates(progress)

    def _hints(self) -> dict[Any, Any]:
        updates: dict[Any, Any] = {}
        for tab in self._tabs:
            fault = self._sessions.studio.generators.fault(tab.kind)
            updates |= {tab.hint: gr.update(value=fault, visible=bool(fault))}
            updates |= {tab.generate: _enabled(tab.generate, not fault)}
        return updates

    # -- changes of the page -------------------------------------------------------------------------------

    def _busy(self) -> dict[Any, Any]:
        return {self._status: markup.status(Progress(stage="asking"))} | {
            button: _enabled(button, False) for button in self._buttons
        }

    def _ready(self, has_object: bool) -> dict[Any, Any]:
        generators = self._sessions.studio.generators
        can = {tab.generate: not generators.fault(tab.kind) for tab in self._tabs}
        can |= {self._film: has_object, self._mesh: has_object}
        return {button: _enabled(button, can.get(button, True)) for button in self._buttons}

    def _object_updates(self, progress: Progress) -> dict[Any, Any]:
        updates: dict[Any, Any] = {self._status: markup.status(progress)}
        if progress.token:
            updates[self._object] = progress.token
        if progress.is_done:
            updates |= self._ready(has_object=not progress.error)
            if not progress.error:
                updates[self._viewer] = markup.viewer(progress.token)
                updates[self._files] = self._offered(progress.token)
        return updates

    def _views_updates(self, tab: GeneratorTab, progress: Progress, token: Any) -> dict[Any, Any]:
        updates: dict[Any, Any] = {self._status: markup.status(progress)}
        if progress.token:
            updates[self._generated] = progress.token
        if progress.is_done:
            updates |= self._ready(has_object=self._sessions.file(token, PLY) is not None)
            if not progress.error:
                updates |= {tab.group: gr.update(visible=True)}
                paths = map(str, progress.result)
                updates |= dict(zip(tab.views.slots, paths, strict=True))
        return updates

    def _file_updates(self, progress: Progress) -> dict[Any, Any]:
        updates: dict[Any, Any] = {self._status: markup.status(progress)}
        if progress.is_done:
            updates |= self._ready(has_object=True)
            if progress.token:
                updates[self._files] = self._offered(progress.token)
        return updates

    def _offered(self, token: str) -> str:
        return markup.files(token, [name for name in (PLY, MESH, VIDEO) if self._sessions.file(token, name)])


@no_type_check  # whose wrapper would hide from gradio that it yields
def _streamed(request: Callable[..., Updates]) -> Callable[..., Updates]:
    """As a generator function, which gradio tells from others by its code."""

    def stream(*inputs: Any) -> Updates:
        yield from request(*inputs)

    return stream


def _enabled(button: gr.Button, is_enabled: bool) -> gr.Button:
    return gr.Button(button.value, interactive=is_enabled)  # without its text it would lose it
