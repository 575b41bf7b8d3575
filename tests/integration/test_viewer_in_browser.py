"""The viewer as a person uses it, in Chromium: what is seen and saved, and nothing is asked elsewhere."""

import io
import struct

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from lgm.cameras import Cameras
from lgm.gaussians.ply import save_ply
from lgm.rendering import TorchRenderer
from lgm.reports.images import to_bytes
from lgm.viewer.framing import framed
from lgm.viewer.objects import ObjectSet
from lgm.viewer.opening import open_objects
from lgm.viewer.server import ViewerServer
from tests.browser import Tab
from tests.unit.viewer.scenes import cloud, predictions

pytestmark = pytest.mark.slow
_STILL = "[...document.querySelectorAll('figure canvas')].every((x) => x.dataset.still === 'true')"


@pytest.fixture
def look(browser):
    servers = []

    def start(*sets: ObjectSet, live: bool = False, **options) -> Tab:
        servers.append(ViewerServer(sets, port=0, live=live))
        servers[-1].start()
        tab = browser.open(f"{servers[-1].url}{options.pop('query', '')}", **options)
        tab.server = servers[-1]
        return tab

    yield start
    for server in servers:
        server.close()


def settle(tab: Tab, name: str | None = None) -> None:
    """Until an object is loaded, and shown from where the camera is."""
    loaded = "document.body.dataset.shown" + (f"?.startsWith({name + '@'!r})" if name else "")
    tab.until(f"Boolean({loaded}) && {_STILL}")


def choose(tab: Tab, name: str) -> None:
    tab.page.locator("#object").select_option(name)
    settle(tab, name)


def canvas(tab: Tab, index: int = 0) -> np.ndarray:
    """What one pane shows, without its caption."""
    tab.page.evaluate("for (const x of document.querySelectorAll('figcaption')) x.style.display = 'none'")
    shot = tab.page.locator("figure").nth(index).screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(np.float32) / 255


def pose(tab: Tab, index: int = 0) -> dict:
    return tab.page.evaluate(f"shown[{index}].view.camera")


def drag(tab: Tab, index: int = 0, across: int = 60) -> None:
    box = tab.page.locator("figure").nth(index).bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] / 2 + across, box["y"] + box["height"] / 2 + 20, steps=4)
    tab.page.mouse.up()


@torch.no_grad()
def rendered(gaussians, camera: dict, height: int, width: int) -> np.ndarray:
    """By the project's renderer, with a page's field of view: that of the shorter side."""
    size = min(height, width)
    cameras = Cameras.orbit([camera["elevationDeg"]], [camera["azimuthDeg"]], camera["radius"])[None]
    K_norm = cameras.K_norm.clone()
    K_norm[..., 0, 0] *= size / width
    K_norm[..., 1, 1] *= size / height
    images = TorchRenderer()(gaussians, Cameras(cameras.c2w, K_norm), height, width).images
    return to_bytes(images[0])[0].astype(np.float32) / 255


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(((one - other) ** 2).mean() + 1e-12))


@pytest.fixture(scope="module")
def mini() -> ObjectSet:
    return open_objects("mini", max_objects=2)


@pytest.mark.parametrize("drawn", ["cpu", "gpu"])
def test_what_is_seen_is_what_the_renderer_draws_and_upright(look, mini, drawn):
    tab = look(mini, width=560, height=600, query=f"?drawn={drawn}")
    settle(tab)
    drag(tab)
    settle(tab)
    image = canvas(tab)
    viewed = framed(mini.load(mini.names[0]))
    assert pose(tab)["azimuthDeg"] != 0
    assert psnr(image, rendered(viewed.gaussians, pose(tab), *image.shape[:2])) > 35
    upside_down = image[::-1]
    assert psnr(upside_down, rendered(viewed.gaussians, pose(tab), *image.shape[:2])) < 25
    tab.check()


def test_objects_scale_background_and_input_cameras(look):
    tab = look(predictions("chair", "desk", step=1200))
    settle(tab, "chair")
    assert "step 1,200 · 300 Gaussians" in tab.page.locator("figcaption").inner_text()
    first = canvas(tab)
    tab.page.click("#next")
    settle(tab, "desk")
    assert psnr(canvas(tab), first) < 40
    before = canvas(tab)
    tab.page.evaluate("$('scale').value = 0.1; $('scale').oninput()")
    settle(tab)
    assert (canvas(tab) < 0.99).sum() < 0.7 * (before < 0.99).sum()
    tab.page.select_option("#background", "black")
    assert canvas(tab)[0, 0].tolist() == [0, 0, 0]
    assert not tab.page.locator(".frustums path").first.is_visible()
    tab.page.check("#cameras")
    settle(tab)
    assert pose(tab)["radius"] > 3
    assert tab.page.locator(".frustums img").count() == 4
    tab.page.click("#inputs button:nth-child(2)")
    settle(tab)
    assert pose(tab)["azimuthDeg"] == pytest.approx(90, abs=1e-3)
    assert pose(tab)["radius"] == pytest.approx(1.5, abs=1e-3)
    tab.check()


def test_the_image_of_an_input_camera_lies_where_the_object_is(look):
    """From where an input was taken, but farther away, its frustum's image fills the middle."""
    tab = look(predictions("chair"))
    settle(tab)
    tab.page.check("#cameras")
    tab.page.evaluate("look({ azimuthDeg: 270, elevationDeg: 0, radius: 4 })")
    settle(tab)
    image = canvas(tab)
    beside = image[image.shape[0] // 2 + 4, image.shape[1] // 2 + 12]  # not on the lines to its apex
    red = np.array([240 / 255, 0, 0])  # of input 3, before whatever is behind it
    assert np.allclose(beside, red, atol=0.1)
    tab.check()


def test_two_stand_side_by_side_with_one_camera(look, tmp_path):
    for name in ("one", "other"):
        save_ply(cloud(), tmp_path / f"{name}.ply")
    tab = look(*(open_objects(str(tmp_path / f"{name}.ply")) for name in ("one", "other")))
    settle(tab, "one | other")
    drag(tab, 0)
    settle(tab)
    assert pose(tab, 0) == pose(tab, 1)
    before = pose(tab, 0)
    drag(tab, 1, across=-90)
    settle(tab)
    assert pose(tab, 0) == pose(tab, 1) != before
    assert psnr(canvas(tab, 0)[:600, :500], canvas(tab, 1)[:600, :500]) < 35
    tab.check()


def test_an_object_that_only_one_side_has_is_said(look):
    tab = look(predictions("chair", "desk", title="left"), predictions("chair", title="right"))
    settle(tab, "chair")
    choose(tab, "desk")
    assert tab.page.locator("figure p").nth(1).inner_text() == "right has no desk."
    choose(tab, "chair")
    assert tab.page.locator("figure p").nth(1).inner_text() == ""
    tab.check()


def test_an_image_and_a_turntable_are_saved(look):
    tab = look(predictions("chair"))
    settle(tab)
    tab.page.evaluate("look({ radius: 4 })")
    tab.page.select_option("#background", "transparent")
    tab.page.select_option("#size", "512")
    with tab.page.expect_download() as download:
        tab.page.click("#save-image")
    image = Image.open(download.value.path())
    assert download.value.suggested_filename == "chair.png"
    assert image.size == (512, 512)
    alpha = np.asarray(image)[..., 3]
    assert alpha[0, 0] == 0
    assert alpha.max() > 250
    tab.page.evaluate("TURNTABLE.frames = 6; TURNTABLE.size = 128")
    with tab.page.expect_download() as download:
        tab.page.click("#save-turntable")
    frames = imageio.imread(download.value.path().read_bytes(), extension=".mp4").astype(np.float32) / 255
    assert frames.shape == (6, 128, 128, 3)
    assert psnr(frames[0], frames[3]) < 35
    tab.check()


def test_a_page_follows_a_training_without_moving_its_camera(look):
    shown = predictions()
    tab = look(shown, live=True)
    tab.until("$('status').textContent.startsWith('Waiting')")
    fresh = predictions("chair")
    shown.put([("chair", fresh.load("chair"))], step=100)
    tab.server.changed()
    settle(tab, "chair")
    drag(tab)
    settle(tab)
    before, at = canvas(tab), pose(tab)
    shown.put([("chair", predictions("chair").load("chair"))], step=200)
    tab.server.changed()
    tab.until("document.querySelector('figcaption').textContent.includes('step 200')")
    settle(tab, "chair")
    assert pose(tab) == at
    assert psnr(canvas(tab), before) < 40
    tab.server.close()
    tab.until("$('status').textContent.includes('ended')")
    assert not tab.foreign_requests


def test_one_gaussian_and_none_that_can_be_seen(look, tmp_path):
    shown = predictions("one", "none")
    one = cloud(1)
    one.opacities[:] = 1.0
    shown.put([("one", type(shown.load("one"))(one))])
    nothing = cloud(3)
    nothing.opacities[:] = 0.0
    shown.put([("none", type(shown.load("one"))(nothing))])
    tab = look(shown)
    settle(tab, "one")
    assert (canvas(tab) < 0.9).any()
    choose(tab, "none")
    assert "opaque enough" in tab.page.locator("figure p").inner_text()
    assert (canvas(tab)[:40] == 1).all()
    tab.check()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_light_and_dark_wide_and_narrow(look, width, dark):
    tab = look(
        predictions("a name that is far longer than any page is wide " * 3),
        width=width,
        height=844,
        dark=dark,
    )
    settle(tab)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    paper = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(23, 24, 27)" if dark else "rgb(250, 250, 250)")
    for name in ("#save-image", "#save-turntable", "#reset", "#scale"):
        box = tab.page.locator(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    tab.check()


def test_a_damaged_object_is_said_and_the_others_are_there(look, tmp_path):
    for name in ("a", "b"):
        save_ply(cloud(), tmp_path / f"{name}.ply")
    shown = open_objects(str(tmp_path))
    (tmp_path / "a.ply").write_bytes((tmp_path / "a.ply").read_bytes()[:-10])
    tab = look(shown)
    tab.until("document.querySelector('figure p').textContent.includes('a.ply cannot be read')")
    choose(tab, "b")
    assert tab.page.locator("figure p").inner_text() == ""
    assert not tab.foreign_requests


def test_frames_of_another_form_are_refused(look):
    tab = look(predictions("chair"))
    settle(tab)
    body = list(struct.pack("<I", 4) + b"text")
    answer = tab.page.evaluate(
        "async (body) => { const x = await fetch('/video?fps=30', "
        "{ method: 'POST', body: new Uint8Array(body) }); return [x.status, await x.text()]; }",
        body,
    )
    assert answer == [500, "a frame is no JPEG image"]
