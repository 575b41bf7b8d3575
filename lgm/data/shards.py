"""Tar shards: a folder or URL prefix with `index.json`, any object within reach."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lgm.data.decode import decode_rgba
from lgm.data.members import ShardMembers, read_file
from lgm.data.sample import (
    INDEX_NAME,
    BrokenSample,
    CameraRecord,
    Index,
    ShardInfo,
    check_sample,
    parse_index,
    view_keys,
)
from lgm.data.shard_files import LocalFiles, ShardFiles, shard_files
from lgm.data.source import PosedObject, Source

log = logging.getLogger(__name__)

_TRAINING_SPLITS = ("train", "val")
_CAMERAS = "cameras.json"
_KNOWN_MEMBERS = 1 << 20  # files whose places a process remembers: some 30 MB


class ShardObject(PosedObject):
    """One object in a tar: its pictures stay there until they are asked for.

    files: offset and size of each of its files.
    """

    def __init__(
        self,
        uid: str,
        cameras: CameraRecord,
        files: dict[str, tuple[int, int]],
        shards: ShardFiles,
        shard: ShardInfo,
    ) -> None:
        self.uid = uid
        self.cameras = cameras
        self._files = files
        self._keys = view_keys(files)
        self._shards = shards
        self._shard = shard

    def decode(self, view_ids: Sequence[int]) -> np.ndarray:
        try:
            with self._shards.open(self._shard) as file:
                keys = [self._keys[view] for view in view_ids]
                pictures = [read_file(file, self._files[key], key, self.uid) for key in keys]
        except OSError as error:
            raise BrokenSample(f"object {self.uid!r}: {_first_line(error)}") from error
        return decode_rgba(pictures, view_ids, self.uid)


class ShardSource(Source):
    """The objects of one split of a data set, or of all of it.

    path: a local folder, or a URL prefix (`lgm.data.urls`).
    split: a name in the index's `splits`; None is everything.
    cache_dir, cache_bytes: where shards behind a URL are kept, and how much of them.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        cache_dir: str | Path | None = None,
        cache_bytes: float = 50e9,
    ) -> None:
        self.path = str(path)
        self.split = split
        self.files = shard_files(self.path, cache_dir, cache_bytes)
        self.index = self._read_index()
        self._members: OrderedDict[str, ShardMembers] = OrderedDict()
        self._shards, self._ordinals = self._select(split)
        self._sizes = [
            len(self._ordinals[shard.name]) if shard.name in self._ordinals else shard.samples
            for shard in self._shards
        ]

    @property
    def shard_sizes(self) -> list[int]:
        return self._sizes

    def load(self, shard: int, ordinal: int) -> PosedObject:
        info = self._shards[shard]
        place = int(self._ordinals[info.name][ordinal]) if info.name in self._ordinals else ordinal
        try:
            return self._load(info, place)
        except OSError as error:
            raise BrokenSample(f"shard {self.files.url(info.name)}: {_first_line(error)}") from error
        except BrokenSample as error:
            raise BrokenSample(f"{error} (shard {self.files.url(info.name)})") from error

    def prefetch(self, shard: int) -> None:
        self.files.prefetch(self._shards[shard])

    def check_files(self, num_readers: int) -> None:
        self.files.check(self._shards, num_readers)

    def _load(self, shard: ShardInfo, place: int) -> ShardObject:
        with self.files.open(shard) as file:
            members = self._members_of(shard)
            members.extend(file, place + 1)
            if place >= len(members.uids):
                # What the index promises and the shard lacks is broken: counted, never skipped in silence.
                reason = members.fault or f"fewer objects than index.json says ({shard.samples})"
                raise BrokenSample(f"object number {place}: {reason}")
            uid, files = members.uids[place], members.files(place)
            sample = {key: b"" for key in files}
            if _CAMERAS in files:
                sample[_CAMERAS] = read_file(file, files[_CAMERAS], _CAMERAS, uid)
        return ShardObject(uid, check_sample(sample, uid), files, self.files, shard)

    def _members_of(self, shard: ShardInfo) -> ShardMembers:
        members = self._members.setdefault(shard.name, ShardMembers())
        self._members.move_to_end(shard.name)
        while len(self._members) > 1 and sum(map(len, self._members.values())) > _KNOWN_MEMBERS:
            self._members.popitem(last=False)
        return members

    def _read_index(self) -> Index:
        where = self.files.url(INDEX_NAME)
        try:
            return parse_index(self.files.read(INDEX_NAME), where)
        except OSError as error:
            if isinstance(self.files, LocalFiles) and not Path(where).is_file():
                raise FileNotFoundError(
                    f"data.path={self.path} has no {INDEX_NAME}; give a folder that data_tools.pack wrote, "
                    "or data=quickstart for the bundled objects"
                ) from error
            raise FileNotFoundError(f"data.path={self.path}: {_first_line(error)}") from error

    def _select(self, split: str | None) -> tuple[list[ShardInfo], dict[str, np.ndarray]]:
        """The shards of a split and, where the split names objects, the places of these in each."""
        if split is None:
            return list(self.index.shards), {}
        if not self.index.splits and split in _TRAINING_SPLITS:
            log.warning("%s has no splits: the %s split is all of it", self.path, split)
            return list(self.index.shards), {}
        if split not in self.index.splits:
            known = ", ".join(self.index.splits) or "none"
            raise ValueError(
                f"split {split!r} is not in {self.path}/{INDEX_NAME}, which has {known}; choose with "
                "data.train_split, data.val_split or data.split, or pack with --splits train=0.9,val=0.1"
            )
        members = set(self.index.splits[split])
        named = [shard for shard in self.index.shards if shard.name in members]
        if len(named) == len(members) and named:
            return named, {}
        ordinals, found = {}, set()
        for shard in self.index.shards:
            uids = self._uids_in(shard)
            places = [place for place, uid in enumerate(uids) if uid in members]
            found.update(uids[place] for place in places)
            if places:
                ordinals[shard.name] = np.asarray(places, dtype=np.int32)
        absent = sorted(members - found)
        if absent:
            raise ValueError(
                f"split {split!r} of {self.path}/{INDEX_NAME} names {len(absent)} shards or objects that are "
                f"not there, e.g. {absent[0]!r}; mend the index"
            )
        if not ordinals:
            raise ValueError(
                f"split {split!r} of {self.path} names neither a shard nor an object that is there"
            )
        return [shard for shard in self.index.shards if shard.name in ordinals], ordinals

    def _uids_in(self, shard: ShardInfo) -> list[str]:
        """The uids in a shard, in order; only the headers are read."""
        where = self.files.url(shard.name)
        members = ShardMembers()
        try:
            with self.files.open(shard) as file:
                members.extend(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"shard {where} is missing, though index.json names it") from error
        except OSError as error:
            raise ValueError(f"shard {where} cannot be read: {_first_line(error)}") from error
        if members.fault:
            raise ValueError(f"shard {where} cannot be read: {members.fault}; copy or pack it again")
        return members.uids


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [repr(error)])[0]
