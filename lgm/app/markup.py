"""The parts of the page that gradio has no component for, as HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from lgm.app.sessions import Progress
from lgm.app.studio import MESH, PLY, VIDEO

_PREVIEW_SIDE = 128  # pixels: small enough to travel within the page at every step
CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.slots { display: grid !important; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); }
.upload { min-width: 0 !important; }
.upload .image-frame { padding-top: 1.9rem; box-sizing: border-box; }
.upload .image-container > .upload-container > button { padding-top: 1.2rem; }
.views > .styler > .block { padding: .6rem .8rem; }
[id^="examples-"] table { table-layout: fixed; width: 100%; }
[id^="examples-"] th { white-space: normal !important; overflow-wrap: anywhere; padding: .2rem !important; }
[id^="examples-"] td { padding: .2rem !important; }
[id^="examples-"] td div, [id^="examples-"] td img { max-width: 100%; }
#status { min-height: 3.2rem; }
#status progress { width: 100%; height: .6rem; accent-color: var(--color-accent); }
#status p { margin: .2rem 0; overflow-wrap: anywhere; }
#status .error { color: var(--error-text-color, #b91c1c); font-weight: 600; }
#status .previews { display: grid; grid-template-columns: repeat(4, 1fr); gap: .4rem; margin-top: .4rem; }
#status .previews img { width: 100%; border-radius: 6px; display: block; }
#viewer iframe { width: 100%; aspect-ratio: 1; max-height: 70vh;
  border: 1px solid var(--border-color-primary); border-radius: 10px; display: block;
  background: var(--background-fill-primary); }
#viewer .empty { display: grid; place-items: center; aspect-ratio: 1; max-height: 70vh; text-align: center;
  border: 1px dashed var(--border-color-primary); border-radius: 10px; color: var(--body-text-color-subdued);
  padding: 1rem; }
#files a { display: inline-block; margin: .2rem .8rem .2rem 0; font-weight: 600; }
#files video { width: 100%; max-height: 60vh; border-radius: 10px; display: block; margin-top: .5rem;
  background: #fff; }
"""
EMPTY = '<div class="empty">The object will turn here.</div>'


def status(progress: Progress) -> str:
    """How far it is, or what went wrong."""
    if progress.error:
        return f'<p class="error" role="alert">{escape(progress.error)}</p>'
    if progress.is_done:
        return '<p role="status">Done.</p>'
    if progress.stage == "waiting" and progress.ahead:
        ahead = f"{progress.ahead} object{'s' * (progress.ahead > 1)}"
        return f'<p role="status">Waiting: {ahead} before this one.</p><progress></progress>'
    stage = escape(progress.stage[:1].upper() + progress.stage[1:])
    bar = f'<progress max="1" value="{progress.fraction:.3f}"></progress>'
    return f'<p role="status">{stage} …</p>{bar}{_previews(progress.preview)}'


def viewer(token: str) -> str:
    """The object that turns."""
    return (
        # A relative address holds behind a proxy's path, too.
        f'<iframe src="objects/{escape(token)}/view" title="The object: drag to turn it, wheel to zoom" '
        'loading="eager"></iframe>'
    )


def files(token: str, offered: Sequence[str]) -> str:
    """Links to those of an object's files that are there, and its video."""
    names = {PLY: "Gaussians (.ply)", MESH: "Mesh (.glb)", VIDEO: "Turntable (.mp4)"}
    address = f"objects/{escape(token)}"
    links = "".join(
        f'<a href="{address}/{name}" download="{name}">⤓ {text}</a>'
        for name, text in names.items()
        if name in offered
    )
    # Browsers start a video by themselves only where it is muted.
    video = f'<video src="{address}/{VIDEO}" controls autoplay loop muted playsinline></video>'
    return links + (video if VIDEO in offered else "")


def _previews(images: Sequence[Image.Image]) -> str:
    if not images:
        return ""
    shown = "".join(f'<img src="{_data(image)}" alt="a view that is being made">' for image in images)
    return f'<div class="previews">{shown}</div>'


def _data(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
