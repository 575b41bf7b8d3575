"""Whether a file that has arrived is what was asked for."""

from __future__ import annotations

import os
from typing import BinaryIO

from lgm.files import sha256_of


def check_content(file: BinaryIO, suffix: str, sha256: str | None) -> str | None:
    """The fault of a file's content, or None.

    sha256: what it must have, in hex. Without one, a GLB must say so itself and be as long as its header
    says, which tells a file cut off by a server that gives no length, and a Git LFS pointer.
    """
    file.flush()
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return "the file is empty"
    file.seek(0)
    if sha256:
        if (digest := sha256_of(file)) != sha256.lower():
            return f"sha256 is {digest}, expected {sha256.lower()}"
        return None
    head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file"
    if suffix.lower() == ".glb":
        if head[:4] != b"glTF":
            return "it is no GLB file"
        declared = int.from_bytes(head[8:12], "little")
        if size < declared:
            return f"the GLB has {size} bytes, its header says {declared}"
    return None
