"""Docstrings of this project on the pages: `name: what it is` lines become a list.

A docstring here names its arguments or fields in lines of their own, as `size: height and width in pixels`,
with the lines that go on indented. Markdown would run them together. mkdocstrings loads this file as an
extension of griffe, which reads the sources without importing them.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_NAMED = re.compile(r"^([a-z_A-Z][\w*]*(?:, [a-z_A-Z][\w*]*)*): (\S.*)$")


class NamedLines(griffe.Extension):
    """Every docstring's lines of named arguments as a Markdown list."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite each object's docstring as it is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = as_list(obj.docstring.value)


def as_list(docstring: str) -> str:
    """The same text, each `name: …` line but the first as an item of a list."""
    lines, out, in_item = docstring.splitlines(), [], False
    for number, line in enumerate(lines):
        # Not the first line: it is the summary, even where it has a colon.
        match = _NAMED.match(line) if number else None
        # `https://…` and `Raises ValueError: …` look like names, too.
        if match and not line.startswith(("http", "Raises")):
            # A list needs an empty line before it, and text one behind it.
            if out and out[-1].strip() and not in_item:
                out.append("")
            out.append(f"- **{match[1]}**: {match[2]}")
            in_item = True
        elif in_item and line.startswith(" "):
            out.append(line)
        else:
            if in_item and line.strip():
                out.append("")
            out.append(line)
            in_item = False
    return "\n".join(out)
