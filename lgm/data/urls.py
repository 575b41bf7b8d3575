"""Reading from URLs: with patience for servers that stumble, and one line for those that refuse."""

from __future__ import annotations

import errno
import http.client
import logging
import os
import time
from typing import BinaryIO

from lgm.data.s3 import signed_url
from lgm.data.transfer import from_command, from_server
from lgm.errors import first_line

log = logging.getLogger(__name__)

_PAUSES_S = (1.0, 4.0, 15.0, 60.0)  # between attempts
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PROGRESS = 1 << 20  # an attempt that brought so much is no failure: a line that often breaks ends too


def is_url(path: str) -> bool:
    return "://" in path or path.startswith("pipe:")


def join_url(prefix: str, name: str) -> str:
    """A file's URL under a prefix; in a command (`pipe:rclone cat remote:set/{}`) it replaces `{}`."""
    if prefix.startswith("pipe:"):
        if "{}" not in prefix:
            raise ValueError(
                f"data.path={prefix} does not say where the file's name goes; write {{}} there, e.g. "
                "data.path='pipe:rclone cat remote:set/{}'"
            )
        return prefix.replace("{}", name)
    return f"{prefix.rstrip('/')}/{name}"


def fetch(url: str, file: BinaryIO, num_bytes: int | None = None) -> None:
    """Write what a URL holds into an empty file; raises FileNotFoundError or OSError in one line.

    A failure is tried again a few times; over http(s) and s3 from where it broke off, if the server can.

    num_bytes: how many it has, where that is known: some servers tell no length, and end early.
    """
    failures = 0
    while True:
        before = file.seek(0, os.SEEK_END)
        try:
            return _attempt(url, file, num_bytes)
        except FileNotFoundError:
            raise
        except (OSError, http.client.HTTPException) as error:
            has_progressed = file.seek(0, os.SEEK_END) >= before + _PROGRESS
            failures = 1 if has_progressed else failures + 1
            reason = first_line(getattr(error, "reason", None) or error)
            if getattr(error, "errno", None) in _FULL:
                raise OSError(f"{url} cannot be kept: {reason} (data.cache_dir)") from error
            if failures > len(_PAUSES_S):
                raise OSError(f"{url}: {reason}, {failures} times in a row") from error
            pause = _PAUSES_S[failures - 1]
            log.warning("%s: %s; again in %g s", url, reason, pause)
            time.sleep(pause)


def _attempt(url: str, file: BinaryIO, num_bytes: int | None) -> None:
    if url.startswith(("http://", "https://")):
        from_server(url, file, url, num_bytes)
    elif url.startswith("s3://"):
        from_server(signed_url(url), file, url, num_bytes)
    else:
        from_command(url, file)
