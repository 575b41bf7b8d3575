"""The table of a data set's objects: one row per object, in the order of the shards.

`objects.jsonl` lies beside `index.json` where data_tools.pack wrote it: one line an object, its shard
and its `<uid>.json`. A set without it is read once for it, and the table is kept in the cache.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from lgm.data.schema.names import MOST_LINE_BYTES, MOST_ROW_BYTES
from lgm.data.schema.sample import TABLE_NAME, BrokenSample, Index, ShardInfo, table_line
from lgm.data.transport.compressed import Compressed
from lgm.data.transport.members import ShardMembers, read_file
from lgm.data.transport.shard_files import LocalFiles, ShardFiles
from lgm.data.transport.transfer import TooLarge
from lgm.errors import first_line, reading
from lgm.files import atomic, locked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One object: the `ordinal`-th in its shard, from 0."""

    shard: str
    ordinal: int
    uid: str
    metadata: dict[str, Any]


def rows(files: ShardFiles, index: Index) -> Iterator[Row]:
    """All objects of a set; raises ValueError where table and index disagree."""
    where = files.url(TABLE_NAME)
    try:
        path = _table(files, index)
    except OSError as error:
        raise ValueError(f"{files.path} cannot be read for its metadata: {first_line(error)}") from error
    try:
        yield from _rows(path, where, index)
    except ValueError:
        if not isinstance(files, LocalFiles):
            path.unlink(missing_ok=True)  # the next run asks for it anew: the server may have mended it
        raise


def _rows(path: Path, where: str, index: Index) -> Iterator[Row]:
    samples = {shard.name: shard.samples for shard in index.shards}
    counts = dict.fromkeys(samples, 0)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        # A line is read no further than the longest may be: what comes of a server need not have line breaks.
        for number, line in enumerate(iter(partial(lines.readline, MOST_LINE_BYTES + 1), b""), 1):
            line_name = f"{where} line {number}"
            with reading(line_name, f"pack the set again, or remove {TABLE_NAME}"):
                row = _row(line, counts, line_name)
            if row is None:
                continue
            yield row
            counts[row.shard] += 1
            if counts[row.shard] > samples[row.shard]:
                break
    for shard, count in counts.items():
        if count != samples[shard]:
            more = " and more" if count > samples[shard] else ""
            raise ValueError(
                f"{where} has {count}{more} objects of shard {shard}, index.json says {samples[shard]}; "
                f"pack the set again, or remove {TABLE_NAME}"
            )


def _row(line: bytes, counts: Mapping[str, int], where: str) -> Row | None:
    """A line's object; None where it is of a shard that the index does not name."""
    if len(line) > MOST_LINE_BYTES:
        raise ValueError(f"{where} is longer than {MOST_LINE_BYTES} bytes; pack the set again")
    metadata = json.loads(line)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("shard"), str) or "uid" not in metadata:
        raise ValueError(f"{where} needs a shard and a uid; pack the set again, or remove {TABLE_NAME}")
    shard = metadata.pop("shard")
    return Row(shard, counts[shard], str(metadata["uid"]), metadata) if shard in counts else None


def _table(files: ShardFiles, index: Index) -> Path:
    """The set's own table, fetched once for this index; made from the shards where it has none."""
    if isinstance(files, LocalFiles):
        path = files.path_of(TABLE_NAME)
        return path if path.is_file() else _own_table(files, index)
    path = _cached(files, index).with_suffix(".jsonl.gz")
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            try:
                with atomic(path) as new, Compressed(new) as file:
                    files.copy(
                        TABLE_NAME,
                        cast(BinaryIO, file),
                        max(MOST_LINE_BYTES, index.num_samples * MOST_ROW_BYTES),
                    )
            except TooLarge:
                raise
            except OSError:
                log.debug("%s has no %s", files.path, TABLE_NAME)
    return path if path.exists() else _own_table(files, index)


def _own_table(files: ShardFiles, index: Index) -> Path:
    path = _cached(files, index)
    with locked(path.with_suffix(".lock")):  # other ranks wait for the one that reads
        if not path.exists():
            log.warning(
                "%s has no %s: reading its %d shards once for their metadata, kept in %s; %s. "
                "`python -m data_tools.verify <folder> --write-table` makes the table, once for all",
                files.path,
                TABLE_NAME,
                len(index.shards),
                path,
                _cost(files, index),
            )
            with atomic(path) as new, new.open("wb") as file:
                for shard in index.shards:
                    file.writelines(line.encode("utf-8", "surrogatepass") for line in _scan(files, shard))
    return path


def _cost(files: ShardFiles, index: Index) -> str:
    size = sum(shard.bytes for shard in index.shards) / 1e9
    if isinstance(files, LocalFiles):
        return f"of {size:.3g} GB each machine reads the headers and the metadata"
    return f"each machine downloads all of its {size:.3g} GB"


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
        for ordinal, uid in enumerate(members.uids):
            try:
                content = json.loads(read_file(file, members.files(ordinal)["json"], "json", uid))
            except (BrokenSample, KeyError, ValueError, RecursionError):
                content = {}
            yield table_line(shard.name, uid, content if isinstance(content, dict) else {})
