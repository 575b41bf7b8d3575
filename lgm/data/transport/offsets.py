"""Tables of offsets: where each file lies in a shard, written beside it, so that opening it reads none of its
headers.

`<shard>.offsets.json` lies beside `<shard>.tar`, in a folder:

    {"version": 1, "shard": "train-000000.tar", "bytes": …, "sha256": "…",
     "layouts": [["json", "cameras.json", "view_000.webp", …], …],
     "objects": [[uid, layout, offset of its first header, [size of each file]], …]}

bytes and sha256 are the shard's as index.json has them: they tie the table to it. In a tar, a file's header
takes one block of 512 bytes and its content is filled up to whole blocks, so that sizes say where the next
one lies. A table that does not fit is not used: the shard's headers are read instead, and the log says so.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any, BinaryIO

import numpy as np

from lgm.data.schema.names import offsets_name
from lgm.data.schema.sample import ShardInfo
from lgm.data.transport.members import BLOCK, ShardMembers, plain_header
from lgm.data.transport.shard_files import ShardFiles
from lgm.errors import first_line, reading, shown

log = logging.getLogger(__name__)

OFFSETS_VERSION = 1


def members_of(files: ShardFiles, shard: ShardInfo, file: BinaryIO) -> ShardMembers:
    """A shard's table of contents: by its table of offsets where that fits, else still to be read from the
    tar.

    file: the shard, opened.
    """
    try:
        text = files.offsets(shard)
        if text is not None:
            with reading("its content"):
                return parse_offsets(text, shard, file)
    except (OSError, ValueError) as error:
        log.warning(
            "%s: %s; the headers of the shard are read instead (remove it, or pack the set again)",
            files.url(offsets_name(shard.name)),
            first_line(error),
        )
    return ShardMembers()


def offsets_text(members: ShardMembers, shard: ShardInfo) -> str | None:
    """The table of a shard whose contents are known whole; None where it has other headers than plain
    ones."""
    layouts: dict[tuple[str, ...], int] = {}
    objects = []
    for ordinal, uid in enumerate(members.uids):
        files = members.files(ordinal)
        offsets, sizes = zip(*files.values(), strict=True)
        start = offsets[0] - BLOCK
        if _offsets(start, sizes).tolist() != list(offsets):
            return None
        objects.append([uid, layouts.setdefault(tuple(files), len(layouts)), start, sizes])
    head = {"version": OFFSETS_VERSION, "shard": shard.name, "bytes": shard.bytes, "sha256": shard.sha256}
    content = {**head, "layouts": [list(keys) for keys in layouts], "objects": objects}
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True) + "\n"


def parse_offsets(text: bytes, shard: ShardInfo, file: BinaryIO) -> ShardMembers:
    """Read and check a table; raises ValueError where it is not of this shard, or not of this file.

    Of the tar itself its size is compared, and the header of the first, the middle and the last object.
    """
    content = json.loads(text)
    _check_head(content, shard, file.seek(0, os.SEEK_END))
    layouts, objects = content.get("layouts"), content.get("objects")
    if not isinstance(layouts, list) or not isinstance(objects, list) or len(objects) != shard.samples:
        raise ValueError(f"it lacks layouts, or the {shard.samples} objects of the shard")
    if not all(isinstance(keys, list) and keys and all(isinstance(k, str) for k in keys) for keys in layouts):
        raise ValueError("its layouts are not lists of names")
    known = []
    for entry in objects:
        uid, layout, start, sizes = entry
        is_counted = all(type(x) is int and 0 <= x <= shard.bytes for x in (layout, start, *sizes))
        if not isinstance(uid, str) or not is_counted or len(sizes) != len(layouts[layout]):
            raise ValueError(
                f"its entry {shown(repr(entry), 80)} is not a uid, a layout, an offset and sizes"
            )
        offsets = _offsets(start, sizes)
        if offsets[-1] + sizes[-1] > shard.bytes:
            raise ValueError(f"object {shown(repr(uid))} ends behind the shard's {shard.bytes} bytes")
        known.append((uid, list(zip(layouts[layout], offsets.tolist(), sizes, strict=True))))
    for uid, ((key, offset, size), *_) in {0: known[0], 1: known[len(known) // 2], 2: known[-1]}.values():
        file.seek(offset - BLOCK)
        name, stated = plain_header(file.read(BLOCK)) or ("", -1)
        if (name.partition(".")[0], name.partition(".")[2].lower(), stated) != (uid, key, size):
            raise ValueError(f"object {shown(repr(uid))} is not where it says: the tar was changed since")
    return ShardMembers.of(known)


def _check_head(content: Any, shard: ShardInfo, num_bytes: int) -> None:
    if not isinstance(content, dict) or content.get("version") != OFFSETS_VERSION:
        version = content.get("version") if isinstance(content, dict) else None
        raise ValueError(f"it has version {shown(repr(version), 60)}, this program reads {OFFSETS_VERSION}")
    stated = tuple(content.get(key) for key in ("shard", "bytes", "sha256"))
    if stated != (shard.name, shard.bytes, shard.sha256):
        raise ValueError("it is of another shard than index.json names")
    if num_bytes != shard.bytes:
        raise ValueError(f"the shard has {num_bytes} bytes, it says {shard.bytes}")


def _offsets(start: int, sizes: Any) -> np.ndarray:
    """Where files of these sizes begin, the first one's header at `start`."""
    sizes = np.asarray(sizes, dtype=np.int64)
    taken = BLOCK + sizes + -sizes % BLOCK
    return start + BLOCK + np.concatenate([[0], np.cumsum(taken[:-1])])
