"""The app in headless Chromium, as a person uses it: bundled weights, micro pipelines of diffusion."""

import io
import re
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from lgm.app.examples import write_examples
from lgm.app.uploads import SIDES
from lgm.gaussians.ply import load_ply
from tests.clock import GIVE_UP_S

pytest.importorskip("gradio", reason="the app needs gradio: pip install 'lgm-training[app]'")

from lgm.cli.resolvers import asset
from tests.app_server import app_server

pytestmark = pytest.mark.slow
_FRAMES = "Number(document.querySelector('canvas')?.dataset.frames || 0)"
_BROKEN_OFF = re.compile("AbortError|Connection errored out")
_WIDTH = "document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Paths of four views by object."""
    return write_examples(Path(asset("quickstart/val-000000.tar")), tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Without weights of diffusion."""
    nothing = tmp_path_factory.mktemp("nothing")
    options = [
        "queue_limit=2",
        f"imagedream.folder={nothing}",
        f"mvdream.folder={nothing}",
        "max_upload_mb=1",
    ]
    with app_server(tmp_path_factory.mktemp("app"), *options) as server:
        yield server


@pytest.fixture
def opened(browser, served):
    return lambda **options: open_page(browser, served, **options)


def open_page(browser, served, **options):
    tab = browser.open(served.url, **options)
    ready(tab)
    return tab


def ready(tab):
    tab.page.locator("#make-four").wait_for()


def upload(tab, paths, name="four"):
    for side, path in zip(SIDES, paths, strict=True):
        tab.page.locator(f"#{side}-{name} input[type=file]").set_input_files(path)
        tab.page.locator(f"#{side}-{name} img").wait_for()


def replace(tab, slot, path):
    """Take the image out of a slot, and put another in."""
    tab.page.locator(f"#{slot} button[aria-label='Remove Image']").click()
    tab.page.locator(f"#{slot} img").wait_for(state="detached")
    tab.page.locator(f"#{slot} input[type=file]").set_input_files(path)
    tab.page.locator(f"#{slot} img").wait_for(state="attached")


def reload(tab):
    """What the page that is left says of its connection, which breaks off, is no error of the next one."""
    tab.check()
    tab.page.reload()
    tab.console_errors = [line for line in tab.console_errors if not _BROKEN_OFF.search(line)]
    ready(tab)


def wait_for_motion(tab, other_than=""):
    """Until the object in the page has been drawn, and drawn again. other_than: a viewer's address."""
    viewer = tab.page.locator(f"#viewer iframe:not([src='{other_than}'])")
    viewer.wait_for()
    frame = viewer.element_handle().content_frame()
    frame.wait_for_function(f"{_FRAMES} > 1")
    return frame


def downloaded(tab, name):
    with tab.page.expect_download() as download:
        tab.page.locator(f"#files a[download='{name}']").click()
    assert download.value.suggested_filename == name
    return download.value.path()


def test_four_images_become_an_object_that_moves_and_can_be_kept(opened, images, tmp_path):
    tab = opened()
    upload(tab, images["chicken"])
    tab.page.locator("#make-four").click()
    frame = wait_for_motion(tab)
    before = frame.locator("canvas").screenshot()
    frame.wait_for_function(f"{_FRAMES} > {frame.evaluate(_FRAMES) + 3}")
    assert frame.locator("canvas").screenshot() != before
    gaussians = load_ply(downloaded(tab, "object.ply"))
    assert gaussians.num_gaussians > 1000
    red, _, blue = gaussians.colors[0].mean(dim=0)
    assert red > blue  # a brown hen
    tab.check()


def test_a_turntable_and_a_mesh_are_made_when_they_are_asked_for(opened, images):
    pytest.importorskip("fast_simplification", reason="meshes need it, and it is not installed")
    tab = opened()
    upload(tab, images["cupcake"])
    tab.page.locator("#make-four").click()
    wait_for_motion(tab)
    tab.page.locator("#film").click()
    tab.page.locator("#files video").wait_for()
    assert downloaded(tab, "object.mp4").read_bytes()[4:8] == b"ftyp"
    tab.page.locator("#mesh").click()
    tab.page.locator("#files a[download='object.glb']").wait_for()
    assert downloaded(tab, "object.glb").read_bytes()[:4] == b"glTF"
    tab.page.wait_for_function("document.querySelector('video').readyState >= 2")
    tab.check()


def test_an_example_fills_the_four(opened):
    tab = opened()
    tab.page.locator("#examples-four tbody tr").nth(1).locator("td").first.click()
    for side in SIDES:
        tab.page.locator(f"#{side}-four img").wait_for()
    tab.page.locator("#make-four").click()
    wait_for_motion(tab)
    tab.check()


def test_what_is_missing_or_no_image_is_said_in_a_line(opened, images, tmp_path):
    tab = opened()
    tab.page.locator("#make-four").click()
    tab.page.get_by_text("missing: front, right, back, left").wait_for()
    upload(tab, images["chicken"])
    text = tmp_path / "front.png"
    text.write_text("no image at all")
    replace(tab, "front-four", text)
    tab.page.locator("#make-four").click()
    tab.page.get_by_text("Front: the file is no image that can be read").wait_for()
    tab.page.get_by_role("button", name="Make the object").first.wait_for()
    tab.check()


def test_opaque_images_need_a_background(opened, images, tmp_path, monkeypatch):
    monkeypatch.setattr("lgm.app.backgrounds.find_spec", lambda name: None)
    paths = []
    for side, path in zip(SIDES, images["chicken"], strict=True):
        image = Image.open(path)
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        paths.append(tmp_path / f"{side}.jpg")
        white.convert("RGB").save(paths[-1], quality=95)
    tab = opened()
    upload(tab, paths)
    tab.page.locator("#make-four").click()
    tab.page.get_by_text("the image has no transparent background").wait_for()
    tab.page.locator("#background input").click()
    tab.page.get_by_role("option", name="It is plain white").click()
    tab.page.locator("#make-four").click()
    wait_for_motion(tab)
    tab.check()


def test_two_people_get_their_own_and_a_third_is_told_to_wait(browser, served, images):
    served.gate.clear()
    tabs = [open_page(browser, served) for _ in range(3)]
    names = ("chicken", "cactus", "sofa2")
    for tab, name in zip(tabs, names, strict=True):
        upload(tab, images[name])
    tabs[0].page.locator("#make-four").click()
    tabs[0].page.get_by_text("At the gate").wait_for()
    tabs[1].page.locator("#make-four").click()
    tabs[1].page.get_by_text("Waiting: 1 object before this one").wait_for()
    tabs[2].page.locator("#make-four").click()
    tabs[2].page.get_by_text("The server is busy: 2 objects").wait_for()
    served.gate.set()
    colors = []
    for tab in tabs[:2]:
        wait_for_motion(tab)
        colors.append(load_ply(downloaded(tab, "object.ply")).colors[0].mean(dim=0))
        tab.check()
    assert colors[0][0] > colors[0][1]  # a brown hen
    assert colors[1][1] > colors[1][0]  # a green cactus
    tabs[2].page.locator("#make-four").click()  # there is room again
    wait_for_motion(tabs[2])
    tabs[2].check()


def test_a_page_that_is_loaded_again_goes_on(opened, served, images):
    served.gate.clear()
    tab = opened()
    upload(tab, images["cactus"])
    tab.page.locator("#make-four").click()
    tab.page.get_by_text("At the gate").wait_for()
    reload(tab)
    tab.page.get_by_text("At the gate").wait_for()
    served.gate.set()
    wait_for_motion(tab)
    reload(tab)
    wait_for_motion(tab)
    tab.check()


def test_a_file_that_is_too_large_is_not_even_sent(opened, tmp_path):
    tab = opened()
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2 << 20))
    tab.page.locator("#front-four input[type=file]").set_input_files(tmp_path / "large.png")
    tab.page.get_by_text("exceed the maximum allowed size").wait_for()
    assert not [url for url in tab.requests if url.endswith("/upload")]
    assert not tab.foreign_requests


def test_without_weights_the_other_tabs_say_what_to_do(opened):
    tab = opened()
    for name, kind, option in (("One image", "image", "imagedream"), ("Text", "text", "mvdream")):
        tab.page.get_by_role("tab", name=name).click()
        tab.page.locator(f"#hint-{kind}").get_by_text(f"{option}.folder").wait_for()
        assert tab.page.locator(f"#generate-{kind}").is_disabled()
    tab.check()


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone(opened, images, dark):
    tab = opened(width=390, height=844, dark=dark)
    assert tab.page.evaluate(_WIDTH) <= 390
    upload(tab, images["chicken"])
    tab.page.locator("#make-four").click()
    wait_for_motion(tab)
    assert tab.page.evaluate(_WIDTH) <= 390
    background = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, background[4:-1].split(",")[:3])) / 3
    assert (brightness < 128) == dark
    tab.check()


def test_what_is_too_large_or_asked_for_by_another_name_is_refused(served):
    def status(path, data=None, **headers):
        request = urllib.request.Request(served.url + path, data, headers)
        try:
            return urllib.request.urlopen(request, timeout=GIVE_UP_S).status
        except urllib.error.HTTPError as error:
            return error.code

    assert status("/") == 200
    assert status("/", Host="evil.example") == 403
    assert (
        status("/gradio_api/upload", io.BytesIO(b"x" * (2 << 20)), **{"Content-Length": str(2 << 20)}) == 413
    )
    assert status("/gradio_api/file=/etc/hostname") == 404
    assert status("/gradio_api/info") in (200, 404)
    assert status("/docs") == 404


def test_no_path_of_the_machine_is_served(served, opened, images):
    tab, answers = opened(), []
    is_text = re.compile("html|json|event-stream")

    def keep(response):
        if is_text.search(response.headers.get("content-type", "")) and "heartbeat" not in response.url:
            answers.append(response)

    tab.page.on("response", keep)
    tab.page.locator("#examples-four tbody tr").first.locator("td").first.click()
    upload(tab, images["chicken"])
    tab.page.locator("#make-four").click()
    wait_for_motion(tab)
    tab.page.reload()
    wait_for_motion(tab)
    root = str(served.sessions.store.root)
    texts = [urllib.request.urlopen(f"{served.url}/config", timeout=GIVE_UP_S).read().decode()]
    texts += [answer.url for answer in answers]
    for answer in answers:
        with suppress(Exception):  # a stream that was broken off has no body
            texts.append(answer.text())
    assert any("/files/uploads/" in text for text in texts)
    assert not [text for text in texts if root in text or quote(root, safe="") in text]


def test_one_image_and_a_sentence_become_objects(browser, tmp_path, images):
    pytest.importorskip("diffusers", reason="pipelines need diffusers, which is not installed")
    pytest.importorskip("transformers", reason="pipelines need transformers, which is not installed")
    from tests.multiview_components import write_pipeline

    options = ["data/background@background=keep"]
    for name, takes_image in (("imagedream", True), ("mvdream", False)):
        folder = write_pipeline(tmp_path / name, takes_image)
        options += [f"{name}.folder={folder}", f"{name}.num_steps=30", f"{name}.size=64"]
    with app_server(tmp_path / "app", *options) as server:
        tab = open_page(browser, server)
        tab.page.get_by_role("tab", name="One image").click()
        tab.page.locator("#prompt-image input[type=file]").set_input_files(images["chicken"][0])
        tab.page.locator("#prompt-image img").wait_for()
        tab.page.locator("#seed-image input").fill("7")
        tab.page.locator("#generate-image").click()
        for side in SIDES:
            tab.page.locator(f"#{side}-image img").wait_for()
        tab.page.locator("#make-image").click()
        wait_for_motion(tab)

        tab.page.get_by_role("tab", name="Text").click()
        tab.page.locator("#text-text textarea").fill("a teapot")
        tab.page.locator("#generate-text").click()
        tab.page.locator("#status .previews img").nth(3).wait_for()
        for side in SIDES:
            tab.page.locator(f"#{side}-text img").wait_for()
        before = tab.page.locator("#back-text img").get_attribute("src")
        reload(tab)  # the views are still there
        tab.page.get_by_role("tab", name="Text").click()
        tab.page.locator("#back-text img").wait_for()
        replace(tab, "back-text", images["chicken"][2])
        assert tab.page.locator("#back-text img").get_attribute("src") != before
        former = tab.page.locator("#viewer iframe").get_attribute("src")
        tab.page.locator("#make-text").click()
        wait_for_motion(tab, other_than=former)
        tab.check()
