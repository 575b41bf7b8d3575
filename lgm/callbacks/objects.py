"""One folder an object, and what happens when one object cannot be written."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


def object_dir(run_dir: str | Path, uid: str) -> Path:
    """`<run_dir>/objects/<uid>`, wherever that name is one a file system takes.

    Other uids lose the characters that are no part of a file name (a uid may be a path) and get a
    few digits of their hash, so that two of them never share a folder.
    """
    name = re.sub(r"[^\w.-]+", "_", uid).lstrip(".")[:100] or "object"
    if name != uid:
        name += "_" + hashlib.sha256(uid.encode()).hexdigest()[:8]
    return Path(run_dir) / "objects" / name


@contextmanager
def tolerate(what: str, uid: str, failed: list[str]) -> Iterator[None]:
    """Log a failure on one object, add its uid to `failed`, and go on: an evaluation of a thousand
    objects does not end for one."""
    try:
        yield
    except Exception as error:
        failed.append(uid)
        log.warning("%s failed for object %s: %s: %s", what, uid, type(error).__name__, error)
