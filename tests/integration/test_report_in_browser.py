"""report.html in Chromium: Gaussians turn as the renderer draws them, tables sort, predictions flip."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lgm.cameras import Cameras
from lgm.cli.evaluate import evaluate
from lgm.gaussians.ply import load_ply, save_ply
from lgm.metrics.protocol import Protocol
from lgm.metrics.summary import summarise
from lgm.metrics.table import VIEW_ID, ViewTable
from lgm.rendering import TorchRenderer
from lgm.reports.comparison import compare_folders, write_comparison
from lgm.reports.evaluation_page import page
from lgm.reports.images import to_bytes
from lgm.reports.shown_object import ObjectImages, Orbit, Thumbnail, ViewImages
from tests.integration.running import composed
from tests.integration.test_comparison import write_evaluation
from tests.unit.metrics.test_hostile_names import NAMES
from tests.unit.reports.test_splats import scene

pytestmark = pytest.mark.slow
STILL = ".orbit canvas[data-still=true]"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """`mini` on two bundled objects."""
    folder = tmp_path_factory.mktemp("run")
    options = ["data=quickstart", "data.split=val", "data.max_test_objects=2", "trainer=cpu"]
    options += ["data.num_workers=0", "callbacks.measure.lpips=null", f"run_dir={folder}"]
    evaluate(composed("evaluate", "ckpt=mini", *options))
    return folder


def drawn(section, size: int = 256, **camera: float) -> np.ndarray:
    """What an object's viewer draws for a camera, over white: [H, W, 3] in 0..1."""
    section.scroll_into_view_if_needed()
    section.locator(STILL).wait_for()
    take = "(element, [size, camera]) => element.orbit.snapshot(size, size, camera).toDataURL()"
    url = section.locator(".orbit").evaluate(take, [size, camera])
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB")).astype(np.float32) / 255


def screenshot(section) -> np.ndarray:
    section.locator("canvas[data-still=true]").wait_for()
    image = Image.open(io.BytesIO(section.locator("canvas").first.screenshot())).convert("RGB")
    return np.asarray(image).astype(np.float32) / 255


@torch.no_grad()
def rendered(path: Path, elevation_deg: float, azimuth_deg: float, size: int) -> np.ndarray:
    camera = Cameras.orbit([elevation_deg], [azimuth_deg])[None]
    return to_bytes(TorchRenderer()(load_ply(path), camera, size, size).images[0])[0].astype(np.float32) / 255


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(((one - other) ** 2).mean()))


def test_gaussians_turn_as_the_renderer_draws_them(browser, run_dir):
    tab = browser.open(run_dir / "report.html", width=1280, height=900)
    sections = tab.page.locator("section").all()
    assert len(sections) == 2
    for section in sections:
        uid = section.locator("h2").text_content()  # also while it is off screen, where nothing is laid out
        for elevation, azimuth in ((15, 30), (-40, 200)):
            image = drawn(section, radius=1.5, elevationDeg=elevation, azimuthDeg=azimuth)
            ply = run_dir / "objects" / uid / "gaussians.ply"
            assert psnr(image, rendered(ply, elevation, azimuth, len(image))) >= 30
    before = screenshot(sections[1])
    box = sections[1].locator("canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(*middle)
    tab.page.mouse.down()
    tab.page.mouse.move(middle[0] + 60, middle[1] + 20, steps=3)
    tab.page.mouse.up()
    assert psnr(screenshot(sections[1]), before) < 25
    tab.check()
    own = (run_dir / "report.html").resolve().as_uri()
    assert [url for url in tab.requests if not url.startswith(("data:", "blob:"))] == [own]


def test_a_prediction_turns_into_its_target(browser, run_dir):
    tab = browser.open(run_dir / "report.html", width=1280, height=900)
    flip, target = tab.page.locator(".flip").first, tab.page.locator(".flip .target").first
    flip.scroll_into_view_if_needed()
    assert not target.is_visible()
    flip.hover()
    assert target.is_visible()
    tab.page.mouse.move(0, 0)
    assert not target.is_visible()
    flip.focus()
    tab.page.keyboard.press("Enter")
    assert target.is_visible() and flip.get_attribute("aria-pressed") == "true"
    tab.check()


def test_the_table_of_objects_sorts_and_filters(browser, run_dir):
    tab = browser.open(run_dir / "report.html")
    first = tab.page.locator(".sortable tbody tr:visible td:first-child").first
    worst = first.inner_text()
    tab.page.locator(".sortable th button", has_text="PSNR").click()
    best = first.inner_text()
    assert best != worst
    tab.page.locator(".filter input").fill(worst[:4].upper())
    assert first.inner_text() == worst and tab.page.locator(".filter output").inner_text() == "1 of 2"
    tab.check()


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_the_night(browser, run_dir, dark):
    tab = browser.open(run_dir / "report.html", width=390, height=844, dark=dark)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    background = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(x) for x in background[4:-1].split(",")) < 150) == dark
    tab.check()


def test_evaluations_of_an_object_turn_together(browser, tmp_path):
    folders = []
    for name in "ab":
        folder = write_evaluation(tmp_path / name, objects=2, gain=float(name == "b"))
        for uid in ("object-00", "object-01"):
            save_ply(scene(500), folder / "objects" / uid / "gaussians.ply")
        folders.append(folder)
    tab = browser.open(write_comparison(compare_folders(folders), tmp_path / "out"), width=390)
    pair = tab.page.locator("section").nth(1)
    pair.scroll_into_view_if_needed()
    pair.locator(STILL).nth(1).wait_for()
    azimuths = "[...document.querySelectorAll('.orbit')].map((element) => element.orbit?.camera.azimuthDeg)"
    before = tab.page.evaluate(azimuths)
    pair.locator("canvas").first.focus()
    tab.page.keyboard.press("ArrowRight")
    after = tab.page.evaluate(azimuths)
    assert after[2] == after[3] == before[2] + 5 and after[:2] == before[:2]
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.check()


def test_checkpoints_flip_in_one_place(browser, tmp_path):
    folders = [write_evaluation(tmp_path / name, objects=1, gain=float(name == "b")) for name in "ab"]
    for folder in folders:
        save_ply(scene(500), folder / "objects" / "object-00" / "gaussians.ply")  # other ones in each
    tab = browser.open(write_comparison(compare_folders(folders), tmp_path / "out"), width=900)
    boxes = tab.page.locator(".orbit")
    tab.page.locator("section").scroll_into_view_if_needed()
    tab.page.locator(STILL).nth(1).wait_for()
    swap, copy = tab.page.locator(".swap").nth(1), boxes.nth(1).locator("canvas.other")
    own = screenshot(boxes.nth(1))
    swap.hover()
    copy.wait_for()
    tab.until(
        "document.querySelector('canvas.other').width === document.querySelector('.orbit canvas').width"
    )
    first = screenshot(boxes.nth(0))
    assert psnr(screenshot(boxes.nth(1)), first) > 40 > 25 > psnr(own, first)
    tab.page.mouse.move(0, 0)
    copy.wait_for(state="detached")
    swap.focus()
    tab.page.keyboard.press("Enter")
    copy.wait_for()
    boxes.nth(1).locator("canvas").first.focus()
    tab.page.keyboard.press("ArrowRight")  # the copy turns with its camera
    swap.focus()  # takes the outline from the canvas
    tab.page.locator(STILL).nth(1).wait_for()
    turned = screenshot(boxes.nth(0))
    assert psnr(screenshot(boxes.nth(1)), turned) > 40 > 30 > psnr(turned, first)
    tab.page.keyboard.press("Enter")
    copy.wait_for(state="detached")
    tab.check()


def many_objects(uids: list[str], with_orbits: int = 0) -> str:
    """A page of made-up numbers, images and Gaussians."""
    image = Thumbnail.of(Image.new("RGB", (32, 32), "teal"), "x.png")
    rows = {
        "psnr": 20.0,
        "white_psnr": 9.0,
        "nearest_input_psnr": 15.0,
        "elevation_deg": 0.0,
        "azimuth_deg": 0.0,
    }
    columns = {name: np.full(len(uids), value) for name, value in rows.items()}
    table = ViewTable(np.array(uids), {**columns, VIEW_ID: np.full(len(uids), 4.0)})
    orbit = Orbit.of(scene(2000))
    objects = [
        ObjectImages(
            uid, [image], [ViewImages(image, image, image, 4)], orbit=orbit if i < with_orbits else None
        )
        for i, uid in enumerate(uids)
    ]
    return page(summarise(table, Protocol({"name": "p"}), {}), table, objects)


def test_hostile_names_stay_text(browser, tmp_path):
    names = [name for name in NAMES.values() if "\0" not in name and "\udcff" not in name]
    (tmp_path / "report.html").write_text(many_objects(names, with_orbits=1))
    tab = browser.open(tmp_path / "report.html", width=390)
    tab.page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    assert tab.page.locator("section").count() == len(set(names))
    for section in tab.page.locator("section h2").all():
        section.scroll_into_view_if_needed()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.check()


def test_gaussians_of_many_objects_are_drawn_where_the_reader_is(browser, tmp_path):
    """A browser keeps 16 WebGL contexts a page, and loses the oldest without a word."""
    (tmp_path / "report.html").write_text(
        many_objects([f"object-{i:02d}" for i in range(77)], with_orbits=40)
    )
    tab = browser.open(tmp_path / "report.html", width=900)
    for index in (0, 20, 39, 0):
        section = tab.page.locator("section").nth(index)
        section.scroll_into_view_if_needed()
        section.locator(STILL).wait_for()
        assert tab.page.locator(".orbit canvas[data-frames]").count() <= 6
    tab.check()
