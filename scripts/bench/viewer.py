"""How many frames per second the viewer shows of an orbit, counted in the page, in headless Chromium.

    python scripts/bench/viewer.py object.ply
    python scripts/bench/viewer.py object.ply --size 512 --seconds 10 --drawn gpu --json viewer.json

The camera moves by 3 degrees whenever the browser asks for a frame (requestAnimationFrame); what was shown in
that time is counted, not what was asked for. Without a GPU, `--drawn cpu` (the default there) is the viewer's
own rasterizer and `--drawn gpu` WebGL emulated by SwiftShader. PSNR compares a frame with the image that this
program's renderer makes of the same file. Needs Chromium (LGM_CHROMIUM=<path>, or on PATH) and
`pip install playwright`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console

from lgm.cameras import Cameras
from lgm.metrics.image import psnr
from lgm.rendering import make_renderer
from lgm.viewer.framing import framed
from lgm.viewer.objects import ViewedObject
from lgm.viewer.opening import open_objects
from lgm.viewer.server import ViewerServer

AZIMUTH_DEG, ELEVATION_DEG = 30.0, 20.0
# WebGL on the CPU where there is no GPU; a container's root may not use Chromium's sandbox.
_FLAGS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")
_ORBIT = """async (seconds) => {
  const canvas = document.querySelector("figure canvas"), frames = () => Number(canvas.dataset.frames);
  const start = performance.now(), before = frames();
  let asked = 0, now = start;
  for (; now - start < 1000 * seconds; asked++) {
    look({ azimuthDeg: 3 * asked });
    now = await new Promise(requestAnimationFrame);
  }
  const took = (performance.now() - start) / 1000;
  return { drawn: canvas.dataset.drawn, frames_per_s: (frames() - before) / took, asked_per_s: asked / took };
}"""


@contextmanager
def headless_chromium() -> Iterator[Any]:
    """Playwright's Browser of the system's own Chromium, closed with the block."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = os.environ.get("LGM_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        raise SystemExit("error: no Chromium on PATH; set LGM_CHROMIUM=<its path>")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        try:
            yield chromium
        finally:
            chromium.close()


def measure(page: Any, viewed: ViewedObject, size: int, seconds: float) -> dict[str, Any]:
    """Frames per second of the viewer's page while it orbits."""
    page.evaluate(f"""() => {{
      const figure = document.querySelector("figure");
      const corner = "position: fixed; inset: 0 auto auto 0; z-index: 1";
      figure.style.cssText = `${{corner}}; width: {size}px; height: {size}px`;
      figure.querySelector("figcaption").remove();
    }}""")
    page.evaluate(_ORBIT, 1.0)  # the first frames compile
    result = page.evaluate(_ORBIT, seconds)
    page.evaluate(f"look({{azimuthDeg: {AZIMUTH_DEG}, elevationDeg: {ELEVATION_DEG}}})")
    while page.evaluate("document.querySelector('figure canvas').dataset.still") != "true":
        page.wait_for_timeout(20)
    shot = Image.open(io.BytesIO(page.locator("figure").screenshot())).convert("RGB")
    image = torch.from_numpy(np.asarray(shot).copy()).permute(2, 0, 1)[None] / 255
    cameras = Cameras.orbit([ELEVATION_DEG], [AZIMUTH_DEG])[None]
    expected = make_renderer()(viewed.gaussians, cameras, size, size).images[0].clamp(0, 1)
    return {**result, "psnr": float(psnr(image, expected)), "gaussians": viewed.gaussians.num_gaussians}


def run(chromium: Any, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One file, on a page of its own."""
    shown = open_objects(str(path))
    server = ViewerServer([shown], port=0)
    server.start()
    page = chromium.new_page(viewport={"width": options.size + 300, "height": options.size + 100})
    page.goto(server.url + (f"/?drawn={options.drawn}" if options.drawn else ""))
    while not page.evaluate("document.querySelector('figure canvas')?.dataset.frames"):
        page.wait_for_timeout(20)
    viewed = framed(shown.load(shown.names[0]))
    row = {"file": path.name, "size": options.size, **measure(page, viewed, options.size, options.seconds)}
    Console().print(*(f"{key}={x:.1f}" if isinstance(x, float) else f"{key}={x}" for key, x in row.items()))
    page.close()
    server.close()
    return row


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help=".ply of 3D Gaussians")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of orbit (%(default)s)")
    parser.add_argument("--drawn", choices=("cpu", "gpu"), help="by whom; left out, the page chooses")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    options = parser.parse_args()
    with headless_chromium() as chromium:
        rows = [run(chromium, path, options) for path in options.files]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
