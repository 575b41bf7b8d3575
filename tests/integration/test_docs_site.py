"""The pages as a web site: built strictly, complete, and without a request to another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "scripts/docs/mkdocs.yml"
# Attributes that a browser follows by itself while it shows a page.
FETCHED = {"src", "srcset", "poster", "data"}
FETCHED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings_handlers"):
        pytest.importorskip(package, reason=f"{package} is missing; pip install 'lgm-training[docs]'")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(CONFIG), "-d", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def test_the_site_is_built_strictly(site):
    """Dead links, missing anchors, and pages that the navigation does not name are warnings of mkdocs."""
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert not {page for page in pages if not (site / page).is_file()}


class Requests(HTMLParser):
    """What a browser would fetch for a page, beside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.urls += [values[name] for name in FETCHED & set(values)]
        if tag == "link" and FETCHED_LINKS & set(values.get("rel", "").split()):
            self.urls.append(values.get("href", ""))


def test_the_site_asks_no_other_host(site):
    foreign = []
    for path in site.rglob("*.html"):
        requests = Requests()
        requests.feed(path.read_text(encoding="utf-8"))
        foreign += [f"{path.name}: {url}" for url in requests.urls if re.match(r"(https?:)?//", url)]
    for path in site.rglob("*.css"):
        found = re.findall(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')]+)""", path.read_text("utf-8"))
        foreign += [f"{path.name}: {url}" for url in found]
    assert not foreign, "\n".join(foreign)


def test_every_option_is_in_the_reference(site):
    """Each key of each file of configs/ by its full name, and a comment of each kind beside it."""
    page = (site / "reference/options.html").read_text(encoding="utf-8")
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        group = path.relative_to(ROOT / "configs").parent.as_posix()
        choice = f"{group}={path.stem}" if group != "." else path.name
        assert f"<code>{choice}</code>" in page, choice
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        is_global = group == "." or "# @package _global_" in path.read_text(encoding="utf-8")
        prefix = "" if is_global else group.replace("/", ".") + "."
        for key in set(content) - {"defaults", "hydra"}:
            assert key.startswith("_") or f"<code>{prefix}{key}" in page, f"{choice}: {key}"


def test_images_of_the_pages_are_small():
    files = [
        path for path in (ROOT / "docs").rglob("*") if path.is_file() and path.suffix not in (".md", ".css")
    ]
    assert sum(path.stat().st_size for path in files) <= 2**20
