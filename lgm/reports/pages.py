"""HTML pages from the templates of this folder (jinja2): whatever a template is given is escaped."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lgm.errors import shown
from lgm.reports.columns import format_number
from lgm.reports.portable import portable
from lgm.reports.splats.page import script

_FOLDER = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """The page that a template makes of values; by its content security policy only its own script runs.

    Raises jinja2.UndefinedError where the template asks for a value that it is not given.
    """
    return _environment().get_template(template).render(**values, script=page_script(), policy=_policy())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lgm.reports"),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name is an error, not nothing
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "shown": shown,
        "number": format_number,
        "href": href,
        "anchor": anchor,
        "portable": portable,
    }
    return environment


@cache
def page_script() -> Markup:
    """The script of all pages: viewers of Gaussians and of meshes; tables and flips."""
    files = (Path(__file__).parent / "meshes" / "mesh.js", _FOLDER / "report.js")
    text = "\n".join([script(), *(path.read_text(encoding="utf-8") for path in files)])
    # Either would end or swallow the element that the script stands in.
    assert "</script" not in text and "<!--" not in text
    return Markup(text)


@cache
def _policy() -> str:
    """Of this page: nothing from other hosts, and no script but its own, whatever a name of an object is."""
    digest = base64.b64encode(hashlib.sha256(page_script().encode()).digest()).decode("ascii")
    # Of a page that is opened from the disk, 'self' is nothing: files beside it need `file:`.
    beside = "data: 'self' file:"
    return (
        f"default-src 'none'; img-src {beside}; media-src {beside}; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; worker-src blob:; base-uri 'none'; form-action 'none'"
    )


def href(path: str) -> str:
    """A path beside the page, as a link to it."""
    return quote(path)


def anchor(uid: str) -> str:
    """The id of an object's section."""
    return "object-" + quote(uid, safe="", errors="backslashreplace")
