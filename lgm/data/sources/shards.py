"""Tar shards in WebDataset layout: a folder or URL prefix with `index.json`, each object within reach."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lgm.data.order import num_downloads
from lgm.data.schema.decode import MAX_VIEW_SIDE, decode_depths, decode_rgba, max_side
from lgm.data.schema.names import MOST_INDEX_BYTES
from lgm.data.schema.sample import (
    INDEX_NAME,
    BrokenSample,
    CameraRecord,
    Index,
    ShardInfo,
    check_sample,
    depth_key,
    is_positive,
    parse_index,
    view_keys,
)
from lgm.data.schema.surface import SURFACE_KEY, decode_surface
from lgm.data.sources.base import PosedObject, Source, hash_of
from lgm.data.sources.filters import Filters
from lgm.data.sources.selection import select
from lgm.data.transport.members import ShardMembers, read_file
from lgm.data.transport.offsets import members_of
from lgm.data.transport.shard_files import LocalFiles, ShardFiles, shard_files
from lgm.errors import first_line, reading, shown

log = logging.getLogger(__name__)

_CAMERAS = "cameras.json"
_KNOWN_MEMBERS = 1 << 20  # files whose places a process remembers: some 30 MB


class ShardObject(PosedObject):
    """One object in a tar: its images stay there until they are asked for.

    files: offset and size of each of its files.
    depth_unit: what 1 in its images of depth stands for; None where the index does not say.
    max_side: of its images, in pixels; a larger one is broken.
    """

    def __init__(
        self,
        uid: str,
        cameras: CameraRecord,
        files: dict[str, tuple[int, int]],
        shards: ShardFiles,
        shard: ShardInfo,
        depth_unit: float | None = None,
        max_side: int = MAX_VIEW_SIDE,
    ) -> None:
        self.uid = uid
        self.cameras = cameras
        self._files = files
        self._keys = view_keys(files)
        self._shards = shards
        self._shard = shard
        self._depth_unit = depth_unit
        self._max_side = max_side

    def decode(self, view_ids: Sequence[int]) -> np.ndarray:
        """Read the views' bytes at their offsets in the tar and decode them."""
        files = self._read([self._keys[view] for view in view_ids])
        return decode_rgba(files, view_ids, self.uid, self._max_side)

    def depths(self, view_ids: Sequence[int]) -> np.ndarray | None:
        """16-bit depth of the views; None where the set or one of the views has none."""
        keys = [depth_key(view) for view in view_ids]
        if self._depth_unit is None or any(key not in self._files for key in keys):
            return None
        return decode_depths(self._read(keys), view_ids, self.uid, self._depth_unit, self._max_side)

    def surface(self) -> np.ndarray | None:
        """Surface points of the object, where it has them."""
        if SURFACE_KEY not in self._files:
            return None
        return decode_surface(self._read([SURFACE_KEY])[0], self.uid)

    def _read(self, keys: Sequence[str]) -> list[bytes]:
        try:
            with self._shards.open(self._shard) as file:
                return [read_file(file, self._files[key], key, self.uid) for key in keys]
        except OSError as error:
            raise BrokenSample(f"object {self.uid!r}: {first_line(error)}") from error


class ShardSource(Source):
    """The objects of one split of a data set, or of all of it.

    path: a local folder, or a URL prefix (`lgm.data.transport.urls`).
    split: a name in the index's `splits`; None is everything.
    cache_dir, cache_bytes: where shards behind a URL are kept, and how much of them.
    filters: which of its objects take part; None is all.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        cache_dir: str | Path | None = None,
        cache_bytes: float = 50e9,
        filters: Filters | None = None,
    ) -> None:
        self.files = shard_files(str(path), cache_dir, cache_bytes)
        self.path = self.files.path
        self.split = split
        self.index = self._read_index()
        self._depth_unit = self._render_number("depth_unit")
        resolution = self._render_number("resolution")
        self._max_side = MAX_VIEW_SIDE if resolution is None else max_side(resolution)
        self._members: OrderedDict[str, ShardMembers] = OrderedDict()
        self._longer: dict[str, str] = {}  # shards that hold more objects than the index says
        self._selection = select(self.files, self.index, split, filters or Filters())
        self._sizes = [
            shard.samples if ordinals is None else len(ordinals) for shard, ordinals in self._selection
        ]

    @property
    def shard_sizes(self) -> list[int]:
        return self._sizes

    @property
    def content_hash(self) -> str:
        shards = [
            (info.name, info.sha256, None if ordinals is None else list(map(int, ordinals)))
            for info, ordinals in self._selection
        ]
        return hash_of(*shards)

    def load(self, shard: int, ordinal: int) -> PosedObject:
        """Cameras and file offsets of an object; its images are read when `decode` asks."""
        # `ordinal` counts what is selected, `in_shard` all objects of the tar.
        info, ordinals = self._selection[shard]
        in_shard = ordinal if ordinals is None else int(ordinals[ordinal])
        try:
            with reading(f"object number {in_shard}", kind=BrokenSample, passing=(OSError,)):
                return self._load(info, in_shard)
        except OSError as error:
            raise BrokenSample(f"shard {self.files.url(info.name)}: {first_line(error)}") from error
        except BrokenSample as error:
            raise BrokenSample(f"{error} (shard {self.files.url(info.name)})") from error

    def prefetch(self, shard: int) -> None:
        self.files.prefetch(self._selection[shard][0])

    def note_downloads(self, num_consumers: int, num_machines: int, seed: int) -> None:
        num_shards = len(self._sizes)
        if isinstance(self.files, LocalFiles) or num_shards >= num_consumers or num_machines == 1:
            return
        fetched = num_downloads(self._sizes, num_consumers, num_machines, seed)
        log.warning(
            "data: %s: %d shards for %d loader processes (ranks × data.num_workers) on %d machines: "
            "%d downloads a pass, %.2f × the set; smaller shards (data_tools.pack --shard-mb) bring it down",
            self.path, num_shards, num_consumers, num_machines, fetched, fetched / num_shards,
        )  # fmt: skip

    def check(self, *args: Any, **kwargs: Any) -> list[PosedObject]:
        """`Source.check`, and ValueError where a shard holds more objects than the index says."""
        checked = super().check(*args, **kwargs)
        for fault in self._longer.values():
            raise ValueError(fault)
        return checked

    def check_files(self, num_readers: int) -> None:
        self.files.check([shard for shard, _ in self._selection], num_readers)

    def _load(self, shard: ShardInfo, in_shard: int) -> ShardObject:
        with self.files.open(shard) as file:
            members = self._members_of(shard, file)
            members.extend(file, in_shard + 1)
            if in_shard >= len(members.uids):
                # What the index promises and the shard lacks is broken: counted, never skipped in silence.
                reason = members.fault or f"fewer objects than index.json says ({shard.samples})"
                raise BrokenSample(f"object number {in_shard}: {reason}")
            if in_shard + 1 == shard.samples and not members.is_complete:
                self._note_longer(shard)  # asked of a table that is there anyway, never by reading on
            uid, files = members.uids[in_shard], members.files(in_shard)
            # Only cameras.json is read here: the check of the sample needs the names of the images, not their
            # bytes.
            sample = {key: b"" for key in files}
            if _CAMERAS in files:
                sample[_CAMERAS] = read_file(file, files[_CAMERAS], _CAMERAS, uid)
        record = check_sample(sample, uid)
        return ShardObject(uid, record, files, self.files, shard, self._depth_unit, self._max_side)

    def _render_number(self, key: str) -> float | None:
        """A number that index.json states of the rendering, None where it is not there; ValueError where it
        is no positive number."""
        value = self.index.render.get(key)
        if value is not None and not is_positive(value):
            raise ValueError(
                f"{self.files.url(INDEX_NAME)} has render.{key}={shown(repr(value))}, which is no positive "
                "number; mend it, or pack the set again"
            )
        return value

    def _note_longer(self, shard: ShardInfo) -> None:
        if shard.name not in self._longer:
            self._longer[shard.name] = (
                f"shard {self.files.url(shard.name)} holds more objects than index.json says "
                f"({shard.samples}); mend the index, or pack the set again"
            )
            log.warning("%s; the others are not read", self._longer[shard.name])

    def _members_of(self, shard: ShardInfo, file: BinaryIO) -> ShardMembers:
        """The member table of a shard; least recently used tables are dropped beyond `_KNOWN_MEMBERS`
        files.
        """
        # Headers of a tar are read once in a process, and as far as objects are asked for.
        members = self._members.get(shard.name)
        if members is None:
            members = self._members[shard.name] = members_of(self.files, shard, file)
        self._members.move_to_end(shard.name)
        while len(self._members) > 1 and sum(map(len, self._members.values())) > _KNOWN_MEMBERS:
            self._members.popitem(last=False)
        return members

    def _read_index(self) -> Index:
        where = self.files.url(INDEX_NAME)
        try:
            return parse_index(self.files.read(INDEX_NAME, MOST_INDEX_BYTES), where)
        except OSError as error:
            if isinstance(self.files, LocalFiles) and isinstance(
                error, FileNotFoundError | NotADirectoryError
            ):
                raise FileNotFoundError(
                    f"data.path={self.path} has no {INDEX_NAME}; give a folder that data_tools.pack wrote, "
                    "or data=quickstart for the bundled objects"
                ) from error
            raise FileNotFoundError(f"data.path={self.path}: {first_line(error)}") from error
