"""What a pack must know of all renders before it begins: a digest of what each object's folder holds, and
what its metadata says of splits.

Asked of many objects in parallel, and remembered: a restart looks at names, sizes and times of the files,
and reads those of an object again where these have changed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_tools.pack.objects import ObjectReader, read_metadata
from data_tools.shared.variants import VARIANT_KEY
from data_tools.shared.worker_pool import process_pool
from lgm.files import atomic

# Fewer objects than this are asked by this process: others take seconds to start.
_FEW = 4000
_CHUNK = 250


@dataclass(frozen=True)
class Scanned:
    """stamp: of names, sizes and times. digest: `ObjectReader.digest`. metadata: what splits depend on, or
    None where it is not asked for."""

    stamp: str
    digest: str
    metadata: dict[str, Any] | None


def scan(
    reader: ObjectReader,
    uids: Sequence[str],
    with_metadata: bool,
    remembered: dict[str, Scanned],
    workers: int,
) -> dict[str, Scanned]:
    """By uid, in the order of `uids`. Raises OSError or ValueError where an object's metadata cannot be
    read."""
    chunks = [uids[start : start + _CHUNK] for start in range(0, len(uids), _CHUNK)]
    known = [{uid: remembered[uid] for uid in chunk if uid in remembered} for chunk in chunks]
    ask = functools.partial(_scan_some, reader, with_metadata)
    found: dict[str, Scanned] = {}
    if workers == 1 or len(uids) < _FEW:
        for part in map(ask, chunks, known):
            found |= part
        return found
    with process_pool(workers) as pool:
        for part in pool.map(ask, chunks, known):
            found |= part
    return found


def _scan_some(
    reader: ObjectReader, with_metadata: bool, uids: Sequence[str], known: dict[str, Scanned]
) -> dict[str, Scanned]:
    return {uid: _scan_one(reader, with_metadata, uid, known.get(uid)) for uid in uids}


def _scan_one(reader: ObjectReader, with_metadata: bool, uid: str, known: Scanned | None) -> Scanned:
    stamp = _stamp(reader.renders / uid)
    if known is not None and known.stamp == stamp and (known.metadata is not None or not with_metadata):
        return known
    metadata = None
    if with_metadata:
        whole = read_metadata(reader.renders, uid)
        metadata = {key: whole[key] for key in ("uid", "group", VARIANT_KEY) if key in whole}
    return Scanned(stamp, reader.digest(uid), metadata)


def _stamp(folder: Path) -> str:
    digest = hashlib.sha256()
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            status = entry.stat()
            # ctime too: a program that puts a file's time back changes that.
            digest.update(
                f"{entry.name}\0{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\0".encode()
            )
    return digest.hexdigest()[:32]


def read_scan(path: Path, asked: dict[str, Any]) -> dict[str, Scanned]:
    """What an earlier run has written; {} where there is none, or other options were `asked`."""
    try:
        with path.open(encoding="utf-8") as lines:
            if json.loads(next(lines, "null")) != json.loads(json.dumps(asked)):
                return {}
            return dict(_entries(lines))
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _entries(lines: Iterator[str]) -> Iterator[tuple[str, Scanned]]:
    for line in lines:
        content = json.loads(line)
        yield content.pop("uid"), Scanned(**content)


def write_scan(path: Path, asked: dict[str, Any], found: dict[str, Scanned]) -> None:
    """Atomically: several machines may write the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(asked) + "\n")
        file.writelines(json.dumps({"uid": uid, **asdict(scanned)}) + "\n" for uid, scanned in found.items())
