"""HTML pages from the templates of this folder (jinja2): whatever a template is given is escaped."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from lgm.errors import shown
from lgm.reports.columns import format_number


def render(template: str, **values: Any) -> str:
    """The page that a template (`base.html`'s title among its values) makes of values.

    Raises jinja2.UndefinedError where the template asks for a value that it is not given.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lgm.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"shown": shown, "number": format_number, "href": href, "anchor": anchor}
    return environment


def href(path: str) -> str:
    """A path beside the page, as a link to it."""
    return quote(path)


def anchor(uid: str) -> str:
    """The id of an object's section."""
    return "object-" + quote(uid, safe="", errors="backslashreplace")
