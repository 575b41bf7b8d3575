"""Pages in which Gaussians turn, and what they need: one script, no request to anywhere else."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from pathlib import Path

from lgm.cameras.canonical import FOV_Y_DEG, RADIUS

_SCRIPTS = ("viewer.js", "webgl.js", "software.js")  # the first one says "use strict"


@cache
def script() -> str:
    """The program that draws: `turnGaussians(canvas, buffer, options)`, to stand in a <script> element."""
    folder = Path(__file__).parent
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)


def page(
    url: str,
    title: str = "Gaussians",
    radius: float = RADIUS,
    fov_y_deg: float = FOV_Y_DEG,
    elevation_deg: float = 10.0,
    drawn: str | None = None,
) -> str:
    """A whole page that draws what lies at `url`, in the format of `lgm.reports.splats.packing`, and turns
    it until somebody takes hold of it: drag, wheel, two fingers, arrow keys, + and -; a double click lets go.

    url: relative to the page. radius, fov_y_deg, elevation_deg: of the camera; +y is up.
    drawn: "gpu" by WebGL, "cpu" by software.js; None takes the latter where WebGL is emulated or missing.
    """
    options = {"radius": radius, "fovYDeg": fov_y_deg, "elevationDeg": elevation_deg, "drawn": drawn}
    return _PAGE.format(
        title=escape(title), script=script(), url=_in_script(url), options=_in_script(options)
    )


def _in_script(value: object) -> str:
    """JSON that cannot end the <script> element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
html, body {{ margin: 0; height: 100%; overflow: hidden; background: transparent; color-scheme: light dark; }}
canvas {{ display: block; width: 100%; height: 100%; touch-action: none; cursor: grab; outline: none; }}
canvas:focus-visible {{ outline: 2px solid #4a8df0; outline-offset: -2px; }}
p {{ font: 15px system-ui, sans-serif; margin: 0; padding: 1rem; color: #888; }}
</style>
<canvas id="gaussians" tabindex="0" role="img" aria-label="{title}: drag to turn, wheel to zoom"></canvas>
<script>
{script}
(async () => {{
  const canvas = document.getElementById("gaussians");
  try {{
    const answer = await fetch({url});
    if (answer.status === 404) throw new Error("This object has expired.");
    if (!answer.ok) throw new Error(`The object could not be loaded (${{answer.status}}).`);
    turnGaussians(canvas, await answer.arrayBuffer(), {options});
  }} catch (error) {{
    const line = document.createElement("p");
    line.textContent = error.message;
    canvas.replaceWith(line);
  }}
}})();
</script>
</html>
"""
