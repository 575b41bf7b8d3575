"""Who is in a data set: one row an object, in the order of the shards.

`objects.jsonl` lies beside `index.json` where data_tools.pack wrote it: one line an object, its shard
and its `<uid>.json`. A set without it is read once for it, and the table is kept in the cache.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgm.data.members import ShardMembers, read_file
from lgm.data.sample import TABLE_NAME, BrokenSample, Index, ShardInfo, table_line
from lgm.data.shard_files import LocalFiles, ShardFiles
from lgm.files import locked, write_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One object: the `place`-th in its shard."""

    shard: str
    place: int
    uid: str
    metadata: dict[str, Any]


def rows(files: ShardFiles, index: Index) -> Iterator[Row]:
    """All objects of a set; raises ValueError where table and index disagree."""
    where = files.url(TABLE_NAME)
    try:
        if isinstance(files, LocalFiles):
            path = Path(where) if Path(where).is_file() else _own_table(files, index)
        else:
            path = _fetched_table(files, index)
    except OSError as error:
        raise ValueError(f"{files.path} cannot be read for its metadata: {error}") from error
    samples = {shard.name: shard.samples for shard in index.shards}
    places = dict.fromkeys(samples, 0)
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                metadata = json.loads(line)
                shard, uid = metadata.pop("shard"), str(metadata["uid"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{where} line {number} needs a shard and a uid: {error!r}") from error
            if shard in places:
                yield Row(shard, places[shard], uid, metadata)
                places[shard] += 1
    for shard, count in places.items():
        if count != samples[shard]:
            raise ValueError(
                f"{where} has {count} objects of shard {shard}, index.json says {samples[shard]}; "
                f"pack the set again, or remove {TABLE_NAME}"
            )


def _fetched_table(files: ShardFiles, index: Index) -> Path:
    """The set's own table, fetched once for this index; made from the shards where it has none."""
    path = _cached(files, index)
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            try:
                write_text(path, files.read(TABLE_NAME).decode())
            except OSError:
                log.debug("%s has no %s", files.path, TABLE_NAME)
    return path if path.exists() else _own_table(files, index)


def _own_table(files: ShardFiles, index: Index) -> Path:
    path = _cached(files, index)
    with locked(path.with_suffix(".lock")):  # other ranks wait for the one that reads
        if not path.exists():
            log.warning(
                "%s has no %s: reading its %d shards once for their metadata, kept in %s",
                files.path,
                TABLE_NAME,
                len(index.shards),
                path,
            )
            write_text(path, "".join(line for shard in index.shards for line in _scan(files, shard)))
    return path


def _cached(files: ShardFiles, index: Index) -> Path:
    return files.cache_dir / "tables" / f"{index.digest[:16]}.jsonl"


def _scan(files: ShardFiles, shard: ShardInfo) -> Iterator[str]:
    """The table's lines of one shard; an object whose metadata cannot be read has none of it."""
    members = ShardMembers()
    with files.open(shard) as file:
        members.extend(file)
        if members.fault or len(members.uids) != shard.samples:
            fault = members.fault or f"{len(members.uids)} objects, index.json says {shard.samples}"
            raise ValueError(f"shard {files.url(shard.name)}: {fault}; copy or pack it again")
        for place, uid in enumerate(members.uids):
            try:
                content = json.loads(read_file(file, members.files(place)["json"], "json", uid))
            except (BrokenSample, KeyError, ValueError):
                content = {}
            yield table_line(shard.name, uid, content if isinstance(content, dict) else {})
