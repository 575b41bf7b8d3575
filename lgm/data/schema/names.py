"""Validation of names, checksums and counts in an index: what becomes a path, a URL or part of a command."""

from __future__ import annotations

import re
from typing import Any

from lgm.errors import shown

# Nothing that a shell, a file system or a URL reads in its own way; a dash in front would be an option.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,195}\.tar")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_TAR_BLOCK = 512  # bytes: each file's header takes as much, so each object does
MOST_BYTES = 1 << 43  # of a shard, 8 TiB; larger is no size but a slip, or meant to do harm
MOST_OBJECTS = 10**9  # of a data set
MOST_INDEX_BYTES = 32 << 20  # some 200,000 shards; read, JSON may take thirty times its size in memory
MOST_OFFSETS_BYTES = 16 << 20  # of a shard's table of offsets: of some 80,000 objects with 30 files each
MOST_LINE_BYTES = 1 << 20  # of objects.jsonl: one object's metadata
MOST_ROW_BYTES = 64 << 10  # of objects.jsonl, in the mean over its objects


def checked_name(name: str) -> str:
    """A file's name as it is; ValueError where it may be more than a name: a folder, an option, a command."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"the name {shown(repr(name))} must be of letters, digits, `_`, `-` and `.`, with no `-` or `.` "
            "first; rename the file, and mend the index"
        )
    return name


def offsets_name(shard: str) -> str:
    """The name of the table that lies beside a shard and says where its objects are."""
    return f"{shard.removesuffix('.tar')}.offsets.json"


def shard_fault(entry: Any) -> str | None:
    """The fault of an entry of an index's `shards`, or None; the end of a sentence about the index."""
    if not isinstance(entry, dict) or not entry.keys() >= {"name", "samples", "bytes", "sha256"}:
        return f"needs shards with name, samples, bytes and sha256, not {shown(repr(entry))}"
    name, samples, size, sha256 = (entry[key] for key in ("name", "samples", "bytes", "sha256"))
    text = shown(repr(name))
    if not isinstance(name, str) or _SHARD_NAME.fullmatch(name) is None:
        return (
            f"names the shard {text}, expected a file beside it with a name of letters, digits, `_`, `-` and "
            "`.`, with no `-` or `.` first and .tar last"
        )
    if not _is_count(samples) or not _is_count(size) or not isinstance(sha256, str):
        values = ", ".join(f"{key}={shown(repr(entry[key]))}" for key in ("samples", "bytes", "sha256"))
        return (
            f"gives shard {text} {values}, expected samples, bytes and sha256 as two whole numbers and a text"
        )
    if samples < 1 or size < 1:
        return f"gives shard {text} samples={shown(samples)} and bytes={shown(size)}, which must be positive"
    if size > MOST_BYTES:
        return f"gives shard {text} bytes={shown(size)}, more than {MOST_BYTES}, the most of a shard"
    if samples * _TAR_BLOCK > size:
        return f"gives shard {text} samples={shown(samples)}, more objects than bytes={size} can hold"
    if _SHA256.fullmatch(sha256) is None:
        return f"gives shard {text} sha256={shown(repr(sha256))}, expected 64 hex digits"
    return None


def splits_fault(splits: Any) -> str | None:
    """The fault of an index's `splits`, or None; the end of a sentence about the index."""
    if not isinstance(splits, dict):
        return f"has splits={shown(repr(splits))}, expected lists of shards or uids by the split's name"
    for name, members in splits.items():
        if not name.isprintable():
            return f"names the split {shown(repr(name))}, expected printable characters"
        if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
            return f"has splits.{shown(name)}={shown(repr(members))}, expected a list of shards or uids"
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
