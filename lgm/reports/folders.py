"""Where an evaluation's files of an object lie."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_LONGEST_NAME = 100  # bytes
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{i}" for port in ("COM", "LPT") for i in range(10))}


def object_dir(run_dir: str | Path, uid: str) -> Path:
    """`<run_dir>/objects/<uid>`, wherever that name is one a file system takes.

    Other uids lose the characters that are no part of a file name (a uid may be a path), or are cut where the
    name would be too long, and get a few digits of their hash, so that two of them never share a folder. So
    do names that Windows keeps for devices.
    """
    name = re.sub(r"[^\w.-]+", "_", uid).strip(".").lstrip("-")
    # By its bytes, of which a file system takes 255; a character may have four.
    name = name.encode("utf-8", "ignore")[:_LONGEST_NAME].decode("utf-8", "ignore") or "object"
    if name.partition(".")[0].upper() in _DEVICES:
        name = f"_{name}"
    if name != uid:
        name += "_" + hashlib.sha256(uid.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return Path(run_dir) / "objects" / name
