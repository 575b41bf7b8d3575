"""Gaussians that turn in a page, in Chromium, beside the same from this program's renderer."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering import TorchRenderer
from lgm.reports.images import to_bytes
from lgm.reports.splats.packing import packed
from lgm.reports.splats.page import page

pytestmark = pytest.mark.slow
SIZE, ELEVATION_DEG = 200, 25.0
_STILL = "document.querySelector('canvas').dataset.still === 'true'"
_FRAMES = "Number(document.querySelector('canvas').dataset.frames || 0)"


@pytest.fixture(scope="module")
def gaussians() -> Gaussians:
    """A cloud that looks different from each side, upside down and mirrored: red is right, green is up."""
    torch.manual_seed(0)
    means = 0.35 * torch.randn(1, 300, 3).clamp(-1.5, 1.5)
    return Gaussians(
        means=means,
        quats=torch.nn.functional.normalize(torch.randn(1, 300, 4), dim=-1),
        scales=0.01 + 0.08 * torch.rand(1, 300, 3) ** 2,
        opacities=torch.rand(1, 300) * 0.9 + 0.1,
        colors=(0.5 + means).clamp(0, 1),
    )


@pytest.fixture
def opened(browser, tmp_path, gaussians):
    path = tmp_path / "page.html"
    url = f"data:application/octet-stream;base64,{base64.b64encode(packed(gaussians)).decode()}"

    def open_page(reduced_motion: str, drawn: str | None = None):
        path.write_text(page(url, elevation_deg=ELEVATION_DEG, drawn=drawn))
        tab = browser.open(path, width=SIZE, height=SIZE)
        tab.page.emulate_media(reduced_motion=reduced_motion)
        tab.page.reload()
        tab.page.wait_for_function(f"{_FRAMES} > 0")
        return tab

    return open_page


def screenshot(tab) -> np.ndarray:
    image = Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")
    return np.asarray(image).astype(np.float32) / 255


@torch.no_grad()
def rendered(gaussians: Gaussians, azimuth_deg: float) -> np.ndarray:
    cameras = Cameras.orbit(torch.tensor([[ELEVATION_DEG]]), torch.tensor([[azimuth_deg]]))
    images = TorchRenderer()(gaussians, cameras, SIZE, SIZE).images
    return to_bytes(images[0])[0].astype(np.float32) / 255


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(((one - other) ** 2).mean()))


@pytest.mark.parametrize("drawn", ["gpu", "cpu"])
def test_the_page_draws_what_the_renderer_draws(opened, gaussians, drawn):
    tab = opened("reduce", drawn)
    tab.page.wait_for_function(_STILL)
    assert psnr(screenshot(tab), rendered(gaussians, 0.0)) > 35
    tab.page.keyboard.press("Tab")
    for _ in range(6):  # 5 degrees each
        tab.page.keyboard.press("ArrowRight")
    tab.page.evaluate("document.activeElement.blur()")  # its frame
    tab.page.wait_for_function(_STILL)
    assert psnr(screenshot(tab), rendered(gaussians, 30.0)) > 35
    tab.check()


def test_emulated_webgl_is_not_used(opened):
    tab = opened("reduce")
    assert tab.page.evaluate("document.querySelector('canvas').dataset.drawn") == "cpu"


def test_it_turns_until_somebody_takes_hold_of_it(opened):
    tab = opened("no-preference")
    before = tab.page.evaluate(_FRAMES)
    tab.page.wait_for_function(f"{_FRAMES} > {before + 2}")
    tab.page.mouse.move(SIZE / 2, SIZE / 2)
    tab.page.mouse.down()
    tab.page.mouse.move(SIZE / 2 + 30, SIZE / 2)
    tab.page.mouse.up()
    tab.page.wait_for_function(_STILL)
    held = tab.page.evaluate(_FRAMES)
    tab.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert tab.page.evaluate(_FRAMES) == held
    tab.page.mouse.dblclick(SIZE / 2, SIZE / 2)
    tab.page.wait_for_function(f"{_FRAMES} > {held + 2}")
    tab.check()


def test_what_cannot_be_drawn_is_said(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page("data:application/octet-stream;base64,AAAA"))
    tab = browser.open(path)
    tab.page.get_by_text("no packed Gaussians").wait_for()
