"""A mesh of report.html in Chromium, beside the same from this program's rasterizer."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lgm.cameras import Cameras
from lgm.meshing.rasterizer import draw
from lgm.reports.evaluation_page import page_without_numbers
from lgm.reports.images import to_bytes
from lgm.reports.meshes.packing import packed
from lgm.reports.shown_object import ObjectImages, Orbit, Thumbnail
from tests.unit.reports.test_meshes import textured_box
from tests.unit.reports.test_splats import scene

pytestmark = pytest.mark.slow
SIZE = 200
_STILL = ".orbit[data-kind=mesh] canvas[data-still=true]"


@pytest.fixture
def report(tmp_path):
    """A page of one object that has a mesh."""
    mesh, image = textured_box(), Thumbnail.of(Image.new("RGB", (96, 16), "teal"), "mesh.png")
    orbit = Orbit.of(scene(200))
    mesh_orbit = orbit.of_mesh(packed(mesh), mesh.num_faces)
    shown = ObjectImages("box", [image], [], orbit=orbit, mesh=image, mesh_orbit=mesh_orbit)
    path = tmp_path / "report.html"
    path.write_text(page_without_numbers("no views", [shown], 1))
    return path


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(((one - other) ** 2).mean()))


def test_a_mesh_turns_as_the_rasterizer_draws_it(browser, report):
    tab = browser.open(report)
    tab.page.locator(_STILL).wait_for()
    element = tab.page.locator(".orbit[data-kind=mesh]")
    for elevation, azimuth in ((15, 30), (-40, 200)):
        camera = {"radius": 1.5, "elevationDeg": elevation, "azimuthDeg": azimuth}
        take = "(element, [size, camera]) => element.orbit.snapshot(size, size, camera).toDataURL()"
        content = base64.b64decode(element.evaluate(take, [SIZE, camera]).partition(",")[2])
        image = Image.open(io.BytesIO(content))
        white = Image.new("RGBA", image.size, "white")
        ours = np.asarray(Image.alpha_composite(white, image).convert("RGB")).astype(np.float32) / 255
        cameras = Cameras.orbit([elevation], [azimuth])
        expected = to_bytes(draw(textured_box(), cameras, SIZE, SIZE, supersampling=2).images[0])[0]
        assert psnr(ours, expected.astype(np.float32) / 255) >= 30
    tab.check()
    assert [url for url in tab.requests if not url.startswith(("data:", "blob:"))] == [
        report.resolve().as_uri()
    ]


def test_gaussians_and_mesh_of_an_object_turn_together(browser, report):
    tab = browser.open(report, width=390, dark=True)
    tab.page.locator(".orbit canvas[data-still=true]").nth(1).wait_for()
    tab.page.locator(".orbit[data-kind=mesh] canvas").focus()
    tab.page.keyboard.press("ArrowRight")
    angles = "[...document.querySelectorAll('.orbit')].map((element) => element.orbit.camera.azimuthDeg)"
    assert tab.page.evaluate(angles) == [35, 35]
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.check()


def test_without_webgl_the_mesh_is_an_image_and_the_gaussians_turn(browser, report):
    tab = browser.open("about:blank")
    tab.page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...more) {"
        "  return kind === 'webgl2' ? null : get.call(this, kind, ...more); };"
    )
    tab.page.goto(report.resolve().as_uri())
    tab.page.get_by_text("Not drawn: this browser has no WebGL").wait_for()
    assert tab.page.locator("img.mesh").is_visible()
    tab.page.locator(".orbit[data-kind=gaussians] canvas[data-still=true]").wait_for()
    assert not tab.console_errors
