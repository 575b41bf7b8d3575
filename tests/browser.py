"""Headless Chromium for tests of what a person opens in a browser, with WebGL drawn in software.

    @pytest.mark.slow
    def test_page(browser):
        tab = browser.open("http://127.0.0.1:8080", width=390, dark=True)
        tab.page.get_by_text("Objects").click()  # Playwright's Page
        tab.check()

Chromium is the system's own (`apt-get install chromium`, or LGM_CHROMIUM=<path>), Playwright drives it (`pip
install playwright`, without its own browsers). The fixture `browser` skips with a reason where one of them is
missing. Names of other hosts do not resolve, so that nothing leaves the machine even by mistake; what a page
asked for all the same is in `Tab.foreign_requests`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clock import GIVE_UP_S, wait_until

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_LOCAL_SCHEMES = {"data", "blob", "about", "chrome", "devtools"}
_FLAGS = (
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # containers have 64 MiB there
    "--no-sandbox",  # root, as in containers, has none
)


@dataclass
class Tab:
    """A page in a context of its own, and what it said and asked for since it was opened.

    page: Playwright's Page. host: whose requests are its own: `name:port`, or "" for a file.
    console_errors: lines of the console of level error, and exceptions that nobody caught.
    requests: all URLs, of WebSockets and of workers too.
    """

    page: Any
    host: str
    console_errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def foreign_requests(self) -> list[str]:
        """Requests to any other host or port than the served one, and to files from a served page."""
        return [url for url in self.requests if not self._is_own(url)]

    def check(self) -> None:
        """Assert that there was no error in the console and no request to another host."""
        assert not self.console_errors
        assert not self.foreign_requests

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression holds, also where a page's policy forbids `eval`, which
        Playwright's own wait_for_function needs. One about an element that is not there yet does not hold."""
        tolerant = f"""(() => {{
            try {{ return Boolean({expression}); }}
            catch (error) {{ if (error instanceof TypeError) return false; throw error; }}
        }})()"""

        def holds() -> bool:
            self.page.wait_for_timeout(20)  # Playwright hands out events meanwhile
            return self.page.evaluate(tolerant)

        wait_until(holds)

    def close(self) -> None:
        self.page.context.close()

    def _is_own(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme in _LOCAL_SCHEMES or parts.netloc == self.host


class HeadlessChromium:
    """Opens pages; each has cookies, storage and downloads of its own."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    def open(self, url: str | Path, width: int = 1280, height: int = 720, dark: bool = False) -> Tab:
        """The page at a URL, or of a file, once it has loaded; width and height in CSS pixels."""
        url = Path(url).resolve().as_uri() if isinstance(url, Path) else url
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        page = context.new_page()
        page.set_default_timeout(1000 * GIVE_UP_S)
        tab = Tab(page, urlsplit(url).netloc)
        context.on("request", lambda request: tab.requests.append(request.url))
        page.on("websocket", lambda socket: tab.requests.append(socket.url))
        page.on("console", lambda message: _note(tab, message))
        page.on("pageerror", lambda error: tab.console_errors.append(str(error)))
        page.goto(url)
        return tab

    def close_tabs(self) -> None:
        for context in self._browser.contexts:
            context.close()


def _note(tab: Tab, message: Any) -> None:
    if message.type == "error":
        tab.console_errors.append(f"{message.text} ({message.location.get('url', '')})")


def chromium() -> str | None:
    """The path of Chromium: LGM_CHROMIUM, or the first of its usual names that is installed."""
    given = os.environ.get("LGM_CHROMIUM")
    return given or next((path for name in _PROGRAMS if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium_process() -> Iterator[HeadlessChromium]:
    """One Chromium for the tests of a file: Playwright's event loop would stand in the way of others'."""
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    if (program := chromium()) is None:
        pytest.skip("no Chromium: apt-get install chromium, or LGM_CHROMIUM=<path of one>")
    with api.sync_playwright() as playwright:
        process = playwright.chromium.launch(
            executable_path=program, args=list(_FLAGS), timeout=1000 * GIVE_UP_S
        )
        try:
            yield HeadlessChromium(process)
        finally:
            process.close()


@pytest.fixture
def browser(chromium_process: HeadlessChromium) -> Iterator[HeadlessChromium]:
    """Headless Chromium; what a test has opened is closed after it."""
    yield chromium_process
    chromium_process.close_tabs()
