"""Tar shards, streamed through WebDataset: a folder or URL prefix with `index.json`."""

import logging
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from lgm.data.decode import decode_rgba
from lgm.data.order import Part
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
from lgm.data.source import PosedObject, Source

log = logging.getLogger(__name__)

_TRAINING_SPLITS = ("train", "val")


class ShardObject(PosedObject):
    """One object as it lay in a tar: its pictures stay compressed until they are asked for."""

    def __init__(self, sample: dict[str, Any]) -> None:
        self.uid = sample["__key__"]
        self.cameras: CameraRecord = check_sample(sample, self.uid)
        self._pictures = {view: sample[key] for view, key in view_keys(sample).items()}

    def decode(self, view_ids: Sequence[int]) -> np.ndarray:
        return decode_rgba([self._pictures[i] for i in view_ids], view_ids, self.uid)


class ShardSource(Source):
    """The objects of one split of a data set, or of all of it.

    path: a local folder, or a URL prefix that WebDataset can open.
    split: a name in the index's `splits`; None is everything.
    """

    def __init__(self, path: str | Path, split: str | None = None) -> None:
        self.path = str(path)
        self.split = split
        self.is_local = "://" not in self.path
        self.index = self._read_index()
        self._shards, self._uids = self._select(split)
        self._sizes = [
            len(self._uids[shard.name]) if shard.name in self._uids else shard.samples
            for shard in self._shards
        ]

    @property
    def shard_sizes(self) -> list[int]:
        return self._sizes

    def read(self, part: Part) -> list[PosedObject | BrokenSample]:
        shard = self._shards[part.shard]
        objects: list[PosedObject | BrokenSample] = []
        wanted = part.size(self._sizes[part.shard])
        try:
            for ordinal, sample in enumerate(self._samples(shard)):
                if ordinal % part.count == part.index:
                    objects.append(_parse(sample))
                if len(objects) == wanted:
                    break  # nothing behind it is this part's
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            objects.append(BrokenSample(f"shard {self._url(shard)}: {_first_line(error)}"))
        # What the index promises and the shard lacks is broken too: counted, never skipped in silence.
        while len(objects) < wanted:
            objects.append(
                BrokenSample(
                    f"shard {self._url(shard)}: fewer objects than index.json says ({shard.samples})"
                )
            )
        return objects[:wanted]

    def check(self, probe: int, max_broken_fraction: float = 0.0) -> list[PosedObject]:
        for shard in self._shards if self.is_local else ():
            file = Path(self.path) / shard.name
            if not file.is_file():
                raise FileNotFoundError(
                    f"shard {file} is missing, though index.json names it; pack the set again"
                )
            if file.stat().st_size != shard.bytes:
                raise ValueError(
                    f"shard {file} has {file.stat().st_size} bytes, index.json says {shard.bytes}; "
                    "it was cut off or changed: copy it again"
                )
        parsed = list(islice(self._parsed(), probe))
        broken = [found for found in parsed if isinstance(found, BrokenSample)]
        if len(broken) > max_broken_fraction * len(parsed):
            raise ValueError(f"{broken[0]}; mend or repack the data set, or raise data.max_broken_fraction")
        return [found for found in parsed if not isinstance(found, BrokenSample)]

    def _parsed(self) -> Iterator[PosedObject | BrokenSample]:
        """All objects in the order they lie in; ValueError where a shard itself cannot be read."""
        for shard in self._shards:
            try:
                for sample in self._samples(shard):
                    found = _parse(sample)
                    if isinstance(found, BrokenSample):
                        found = BrokenSample(f"{found} (shard {self._url(shard)})")
                    yield found
            except (tarfile.TarError, EOFError, OSError, ValueError) as error:
                raise ValueError(
                    f"shard {self._url(shard)} cannot be read: {_first_line(error)}; copy or pack it again"
                ) from error

    def _samples(self, shard: ShardInfo) -> Iterator[dict[str, Any]]:
        """A shard's samples of this split, in the order they lie in."""
        uids = self._uids.get(shard.name)
        for sample in webdataset.tariterators.tarfile_samples([{"url": self._url(shard)}]):
            if uids is None or sample["__key__"] in uids:
                yield sample

    def _url(self, shard: ShardInfo) -> str:
        return f"{self.path.rstrip('/')}/{shard.name}"

    def _read_index(self) -> Index:
        where = f"{self.path.rstrip('/')}/{INDEX_NAME}"
        if self.is_local and not Path(where).is_file():
            raise FileNotFoundError(
                f"data.path={self.path} has no {INDEX_NAME}; give a folder that data_tools.pack wrote, "
                "or data=quickstart for the bundled objects"
            )
        try:
            with webdataset.gopen(where) as stream:
                return parse_index(stream.read(), where)
        except OSError as error:
            raise FileNotFoundError(f"{where} cannot be read: {_first_line(error)}") from error

    def _select(self, split: str | None) -> tuple[list[ShardInfo], dict[str, set[str]]]:
        """The shards of a split and, where the split names objects, those of each shard."""
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
        uids = {shard.name: self._uids_in(shard) & members for shard in self.index.shards}
        absent = sorted(members.difference(*uids.values()))
        if absent:
            raise ValueError(
                f"split {split!r} of {self.path}/{INDEX_NAME} names {len(absent)} shards or objects that are "
                f"not there, e.g. {absent[0]!r}; mend the index"
            )
        shards = [shard for shard in self.index.shards if uids[shard.name]]
        if not shards:
            raise ValueError(
                f"split {split!r} of {self.path} names neither a shard nor an object that is there"
            )
        return shards, uids

    def _uids_in(self, shard: ShardInfo) -> set[str]:
        """The uids in a shard; on a local disk only the headers are read."""
        if not self.is_local:
            raise ValueError(
                f"{self.path}: splits that name objects need a local folder; split by shards instead"
            )
        try:
            with tarfile.open(Path(self.path) / shard.name) as tar:
                return {name.split(".", 1)[0] for name in tar.getnames()}
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"shard {self._url(shard)} is missing, though index.json names it"
            ) from error
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ValueError(f"shard {self._url(shard)} cannot be read: {_first_line(error)}") from error


def _parse(sample: dict[str, Any]) -> PosedObject | BrokenSample:
    try:
        return ShardObject(sample)
    except BrokenSample as error:
        return error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [repr(error)])[0]
