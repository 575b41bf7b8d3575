"""Downloads from URLs, with retries for servers that fail for a while and one line for those that refuse.

Why not fsspec: tried with fsspec 2026.9 and aiohttp 3.14 against servers that fail. A transfer that broke
off raised an error and was not resumed by a byte range; an answer without a length that ended early counted
as complete; one without an end was written without a limit; a byte a second was waited for; and every
transfer ends after 300 s, that of a large shard over a slow line too.
"""

from __future__ import annotations

import errno
import http.client
import logging
import os
import re
import shlex
import time
from typing import BinaryIO

from lgm.data.schema.names import MOST_BYTES, checked_name
from lgm.data.transport.s3 import signed_url
from lgm.data.transport.transfer import TooLarge, from_command, from_server
from lgm.errors import first_line, shown
from lgm.masking import masked

log = logging.getLogger(__name__)

_PAUSES_S = (1.0, 4.0, 15.0, 60.0)  # between attempts
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PROGRESS = 1 << 20  # an attempt that brought so much is no failure: a line that often breaks ends too


def is_url(path: str) -> bool:
    """Whether a data path is a URL prefix (http, https, s3, …) or a `pipe:` command, not a folder."""
    return "://" in path or path.startswith("pipe:")


def join_url(prefix: str, name: str) -> str:
    """A file's URL under a prefix; in a command (`pipe:rclone cat remote:set/{}`) it replaces `{}`, quoted.

    What follows a `?` in an http(s) prefix, e.g. the signature of a whole folder, stays behind the name.
    Raises ValueError where the name is more than a file's name (`lgm.data.schema.names`).
    """
    name = checked_name(name)
    if prefix.startswith("pipe:"):
        if "{}" not in prefix:
            raise ValueError(
                f"data.path={masked(prefix)} does not say where the file's name goes; write {{}} there, e.g. "
                "data.path='pipe:rclone cat remote:set/{}'"
            )
        return prefix.replace("{}", shlex.quote(name))
    end = len(prefix)
    if prefix.startswith(("http://", "https://")) and (match := re.search(r"[?#]", prefix)):
        end = match.start()
    return f"{prefix[:end].rstrip('/')}/{name}{prefix[end:]}"


def fetch(url: str, file: BinaryIO, num_bytes: int | None = None, max_bytes: int = MOST_BYTES) -> None:
    """Write what a URL holds into an empty file; raises FileNotFoundError or OSError in one line.

    A failure is tried again a few times; over http(s) and s3 from where it broke off, if the server can.

    num_bytes: how many it has, where that is known: some servers tell no length, and end early. No more are
        taken. max_bytes: the most that are taken where it is not.
    """
    name = masked(url)
    limit = max_bytes if num_bytes is None else num_bytes
    failures, furthest = 0, file.seek(0, os.SEEK_END)
    while True:
        try:
            return _attempt(url, file, num_bytes, limit)
        except FileNotFoundError:
            raise
        except TooLarge as error:
            known = "are read of such a file" if num_bytes is None else "index.json says"
            raise TooLarge(f"{name} {error} than the {limit} bytes that {known}") from error
        except (OSError, http.client.HTTPException) as error:
            # By how far it ever came: a server that begins anew each time makes none.
            size = file.seek(0, os.SEEK_END)
            failures = 1 if size >= furthest + _PROGRESS else failures + 1
            furthest = max(furthest, size)
            reason = shown(first_line(getattr(error, "reason", None) or error))
            if getattr(error, "errno", None) in _FULL:
                raise OSError(f"{name} cannot be kept: {reason} (data.cache_dir)") from error
            if failures > len(_PAUSES_S):
                raise OSError(f"{name}: {reason}, {failures} times in a row") from error
            pause = _PAUSES_S[failures - 1]
            log.warning("%s: %s; again in %g s", name, reason, pause)
            time.sleep(pause)


def _attempt(url: str, file: BinaryIO, num_bytes: int | None, max_bytes: int) -> None:
    name = masked(url)
    if url.startswith(("http://", "https://")):
        from_server(url, file, name, num_bytes, max_bytes)
    elif url.startswith("s3://"):
        from_server(signed_url(url), file, name, num_bytes, max_bytes)
    else:
        from_command(url, file, max_bytes)
