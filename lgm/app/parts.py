"""Parts of the page, in gradio: four images, and a tab that generates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from lgm.app.examples import SENTENCES
from lgm.app.sessions import MAX_SEED, MAX_TEXT
from lgm.app.uploads import SIDES

Examples = Mapping[str, Sequence[Path]]  # views of objects by name, each by SIDES


@dataclass(frozen=True)
class FourViews:
    """Four images by `SIDES`, and the button that makes an object of them."""

    slots: list[gr.Image]
    make: gr.Button


@dataclass(frozen=True)
class GeneratorTab:
    """hint: why it cannot generate here. image: None where a text is all. group: of the views."""

    kind: str
    hint: gr.Markdown
    image: gr.Image | None
    text: gr.Textbox
    seed: gr.Number
    generate: gr.Button
    group: gr.Group
    views: FourViews


def four_images(examples: Examples) -> FourViews:
    """The four slots for uploads, one per side."""
    gr.Markdown(
        "The object seen level from its front, right, back and left, as large in each. Best are square "
        "images on a transparent background."
    )
    views = _views("four")
    if examples:
        gr.Examples(
            [[str(path) for path in paths] for paths in examples.values()],
            views.slots,
            label="Examples (CC0)",
            examples_per_page=3,
            elem_id="examples-four",
            api_visibility="private",
        )
    return views


def generator_tab(kind: str, examples: Examples) -> GeneratorTab:
    """A prompt, a seed, a button, and the views, which can be replaced."""
    hint = gr.Markdown(elem_id=f"hint-{kind}", visible=False)
    image = _upload("The object from its front", "prompt-image") if kind == "image" else None
    label = "What it is (may stay empty)" if image else "What is to be made"
    text = gr.Textbox(label=label, max_length=MAX_TEXT, elem_id=f"text-{kind}")
    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id=f"seed-{kind}")
    generate = gr.Button("Generate the views", variant="primary", elem_id=f"generate-{kind}")
    with gr.Group(visible=False, elem_id=f"views-{kind}", elem_classes="views") as group:
        gr.Markdown("Each view can be replaced by an image of yours, with the object as large in it.")
        views = _views(kind)
    if image:
        prompts = [[str(paths[0])] for paths in examples.values()]
    else:
        prompts = [[sentence] for sentence in SENTENCES]
    if prompts:
        gr.Examples(
            prompts,
            [image or text],
            label="Examples (CC0)" if image else "Examples",
            elem_id=f"examples-{kind}",
            api_visibility="private",
        )
    return GeneratorTab(kind, hint, image, text, seed, generate, group, views)


def _upload(label: str, elem_id: str) -> gr.Image:
    """An image that somebody uploads, as the path of its file."""
    upload = gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        buttons=[],
        height=200,
        placeholder="Drop an image, or click",
        interactive=True,
        elem_id=elem_id,
        elem_classes="upload",
    )
    # gradio would open the file here, with any of Pillow's readers. (Of a subclass it would write a .pyi.)
    upload.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return upload


def _views(name: str) -> FourViews:
    with gr.Row(elem_classes="slots"):
        slots = [_upload(f"{side} ({90 * number}°)", f"{side}-{name}") for number, side in enumerate(SIDES)]
    make = gr.Button("Make the object", variant="primary", elem_id=f"make-{name}")
    return FourViews(slots, make)
