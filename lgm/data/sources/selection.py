"""Selection of a data set's objects: those of a split that pass the filters."""

from __future__ import annotations

import logging
from array import array

import numpy as np

from lgm.data.schema.sample import INDEX_NAME, Index, ShardInfo
from lgm.data.sources.filters import Census, Filters
from lgm.data.sources.table import rows
from lgm.data.transport.shard_files import ShardFiles

log = logging.getLogger(__name__)

_TRAINING_SPLITS = ("train", "val")

# Shards in the order of the index, each with the places of its objects that take part; None for all.
Selection = list[tuple[ShardInfo, np.ndarray | None]]


def select(files: ShardFiles, index: Index, split: str | None, filters: Filters) -> Selection:
    """The objects of a split that the filters admit; raises ValueError where there are none."""
    filters.check_labels()
    shards, uids = _split(files, index, split)
    # Whole shards: no table of objects is asked for, which an older set does not have.
    if uids is None and not filters:
        return [(shard, None) for shard in shards]
    names = {shard.name for shard in shards}
    census = Census(filters)
    ordinals: dict[str, array] = {}  # 4 bytes an object: of a million, what is held stays small
    present: set[str] = set()
    total = 0
    for row in rows(files, index):
        if row.shard not in names or (uids is not None and row.uid not in uids):
            continue
        total += 1
        if uids is not None:
            present.add(row.uid)
        if census.admits(row.metadata):
            ordinals.setdefault(row.shard, array("i")).append(row.ordinal)
    absent = sorted((uids or set()) - present)
    if absent:
        raise ValueError(
            f"split {split!r} of {files.path}/{INDEX_NAME} names {len(absent)} shards or objects that are "
            f"not there, e.g. {absent[0]!r}; mend the index"
        )
    selection = [(s, np.asarray(ordinals[s.name], dtype=np.int32)) for s in shards if s.name in ordinals]
    if not selection:
        raise ValueError(f"none of the {total} objects of {_name(files, split)} is left: {census.explain()}")
    if filters:
        remaining = sum(len(chosen) for _, chosen in selection)
        log.info(
            "data: %d of %d objects remain of %s: %s",
            remaining,
            total,
            _name(files, split),
            census.summary(),
        )
    return selection


def _split(files: ShardFiles, index: Index, split: str | None) -> tuple[list[ShardInfo], set[str] | None]:
    """The shards where a split's objects may lie and, where it names objects, their uids."""
    if split is None:
        return list(index.shards), None
    if not index.splits and split in _TRAINING_SPLITS:
        log.warning("%s has no splits: the %s split is all of it", files.path, split)
        return list(index.shards), None
    if split not in index.splits:
        known = ", ".join(index.splits) or "none"
        raise ValueError(
            f"split {split!r} is not in {files.path}/{INDEX_NAME}, which has {known}; choose with "
            "data.train_split, data.val_split or data.split, or pack with --splits train=0.9,val=0.1"
        )
    members = set(index.splits[split])
    if not members:
        raise ValueError(f"split {split!r} of {files.path}/{INDEX_NAME} is empty; mend the index")
    named = [shard for shard in index.shards if shard.name in members]
    if len(named) == len(members):
        return named, None
    return list(index.shards), members


def _name(files: ShardFiles, split: str | None) -> str:
    return f"{files.path}, split {split}" if split else files.path
