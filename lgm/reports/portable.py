"""Text for a page that is mailed: without the folders of the machine that made it."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

from lgm.masking import masked

# Absolute paths, from / or a home folder, a drive or a Windows share; not what follows a URL's colon.
_PATH = re.compile(r"(?:file:/*|(?<![\w.:/~\\-]))(?:~[\w.-]*/|/|[A-Za-z]:[\\/]|\\\\)[^\s'\",;()\[\]{}<>|=]*")


def portable(text: object) -> str:
    """The text with absolute paths cut to `…/<last name>`, or to what follows the working directory, and
    credentials masked. Relative paths and URLs stay."""
    return _PATH.sub(lambda match: _cut(match[0]), masked(text))


def portable_argument(argument: str) -> str:
    """The same of one word of a command line, whose path may hold blanks: `key=/data/my set`."""
    key, equals, value = argument.partition("=")
    if _PATH.match(value) and not set(value) & set(",[]{}"):
        return f"{key}{equals}{_cut(masked(value))}"
    return portable(argument)


def _cut(path: str) -> str:
    path = path.removeprefix("file:")
    kind = PureWindowsPath if re.match(r"[A-Za-z]:|\\\\", path) else Path
    try:
        return kind(path).relative_to(Path.cwd()).as_posix()
    except (ValueError, TypeError, OSError):
        pass
    if kind is Path and Path(path) == Path.home():  # its last name is a person's
        return "~"
    name = kind(path).name
    return f"…/{name}" if name else path if path == "/" else "…"
