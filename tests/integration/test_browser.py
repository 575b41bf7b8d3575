"""What the tests in a browser rest on: errors and requests of a page are seen, and WebGL draws."""

import pytest

from tests.clock import wait_until

pytestmark = pytest.mark.slow

_PAGE = """
<!doctype html><link rel="icon" href="data:,"><canvas></canvas><script>
const gl = document.querySelector("canvas").getContext("webgl2");
gl.clearColor(1, 0.5, 0, 1);
gl.clear(gl.COLOR_BUFFER_BIT);
const pixel = new Uint8Array(4);
gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
window.pixel = Array.from(pixel);
window.isDark = matchMedia("(prefers-color-scheme: dark)").matches;
</script>
"""
_HOSTILE = """
<script>
const worker = (text) => new Worker(URL.createObjectURL(new Blob([text])));
worker('new WebSocket("ws://in-a-worker.example/socket")');
worker('fetch("http://fetched.example/data").catch(() => {})');
new WebSocket("ws://socket.example/");
</script>
<img src="http://127.0.0.1:9/image.png"><script>null.x</script>
"""


def test_webgl_draws_in_software(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(_PAGE)
    tab = browser.open(path, width=390, dark=True)
    assert tab.page.evaluate("window.pixel") == [255, 128, 0, 255]
    assert tab.page.evaluate("window.isDark")
    assert tab.page.evaluate("innerWidth") == 390
    tab.check()


def test_requests_and_errors_of_a_page_are_seen(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(_PAGE + _HOSTILE)
    tab = browser.open(path)
    expected = {
        "ws://in-a-worker.example/socket",
        "http://fetched.example/data",
        "ws://socket.example/",
        "http://127.0.0.1:9/image.png",
    }

    def are_seen():
        tab.page.wait_for_timeout(20)  # Playwright hands out events while it waits
        return expected <= set(tab.foreign_requests)

    wait_until(are_seen)
    assert any("TypeError" in line or "null" in line for line in tab.console_errors)
    with pytest.raises(AssertionError):
        tab.check()
