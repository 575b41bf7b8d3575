"""The state of a pack, so that a killed one goes on: its settings in `<out>/.pack.json`, and, until the
folder is whole, what is finished in `<out>/.pack/`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from data_tools.pack.jobs import ShardJob, ShardRecord
from data_tools.pack.scan import Scanned, read_scan, write_scan
from data_tools.shared.partition import Part
from data_tools.shared.shard_writer import PARTIAL_PATTERN
from lgm.data.schema.sample import INDEX_NAME, Index, parse_index
from lgm.files import Locked, locked, write_text

_FOLDER_NAME = ".pack"
_SCAN_NAME = "renders.jsonl"
_SETTINGS_NAME = ".pack.json"
# The setting that stands for what the renders held when the pack began.
CONTENT_DIGEST = "content_digest"
# Packs begun by older versions lack it, and are gone on with.
REPROJECTION = "reprojection"
# What a pack has that was begun before these settings were there.
_BEFORE: dict[str, Any] = {"rules": {}, "labels": None}


class PackState:
    """The memory of one output folder."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folder = out / _FOLDER_NAME
        self._settings = out / _SETTINGS_NAME

    @contextmanager
    def locked(self, part: Part | None = None) -> Iterator[None]:
        """One pack at a time, or one of each part of a set that is cut into as many; the lock goes with its
        process, however that ends."""
        whole, held = self._folder / "lock", self._folder / "lock"
        if part is not None:
            held = self._folder / f"part-{part.number + 1}-of-{part.total}.lock"
        with ExitStack() as stack:
            try:
                with self.alone():
                    stack.enter_context(locked(held, wait=False))
                    for other in {whole, *self._folder.glob("part-*.lock")} - {held}:
                        if part is None or not other.name.endswith(f"-of-{part.total}.lock"):
                            with locked(other, wait=False):
                                pass
            except Locked as error:
                raise ValueError(
                    f"another pack is writing to {self._out}; wait for it, or give another --out"
                ) from error
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other part reads or writes what all share; for moments only."""
        with locked(self._folder / "begin_and_end"):
            yield

    @contextmanager
    def without_partial(self, names: list[str] | None) -> Iterator[None]:
        """Remove half-written files of these shards, or of all, that a stopped process has left: before and
        after."""
        patterns = [PARTIAL_PATTERN] if names is None else [f"{name}.*.partial" for name in names]
        try:
            self._remove(patterns)
            yield
        finally:  # of workers that were stopped
            self._remove(patterns)

    def _remove(self, patterns: list[str]) -> None:
        for pattern in patterns:
            for partial in self._out.glob(pattern):
                partial.unlink(missing_ok=True)

    def scan(self, asked: dict[str, Any]) -> dict[str, Scanned]:
        """What an earlier run found of the renders."""
        return read_scan(self._folder / _SCAN_NAME, asked)

    def remember_scan(self, asked: dict[str, Any], found: dict[str, Scanned]) -> None:
        """Keep a scan of the renders for the next run; see `scan`."""
        write_scan(self._folder / _SCAN_NAME, asked, found)

    def settings(self) -> dict[str, Any] | None:
        """Those of the pack that began here, or None; raises ValueError where strange shards lie."""
        if self._settings.is_file():
            return json.loads(self._settings.read_text("utf-8"))
        if any(self._out.glob("*.tar")):
            raise ValueError(f"{self._out} holds shards already; remove them or give another --out")
        return None

    def begin(self, settings: dict[str, Any]) -> None:
        """Write down the settings of a new set."""
        write_text(self._settings, json.dumps(settings, indent=1, sort_keys=True) + "\n")

    def check(self, begun: dict[str, Any], requested: dict[str, Any]) -> None:
        """Raises ValueError naming what differs between the pack that began here and this one."""
        for key, value in json.loads(json.dumps(requested)).items():
            if begun.get(key, _BEFORE.get(key)) == value or (key == REPROJECTION and key not in begun):
                continue
            if key == CONTENT_DIGEST:
                self._check_content(begun)
                continue
            if key in ("objects", "digest"):
                raise ValueError(
                    f"{self._out} was begun with {begun.get('objects')} objects, now there are "
                    f"{requested['objects']}, or other ones: the renders or their splits have changed; pack "
                    "into another --out"
                )
            raise ValueError(
                f"{self._out} holds shards already, packed with {key}={begun.get(key)!r}, now {value!r} is "
                "asked for; give the same options, or another --out"
            )

    def _check_content(self, begun: dict[str, Any]) -> None:
        """The renders are not known to be those that the pack began with."""
        if CONTENT_DIGEST in begun:
            raise ValueError(
                f"{self._out} was begun with other renders of these objects: their metadata, cameras or "
                "images have changed since; pack into another --out"
            )
        # An older program's pack, which did not note it: a whole one stays what it is.
        if not (self._out / INDEX_NAME).is_file():
            raise ValueError(
                f"{self._out} was begun by an older version, which did not note what the renders held; "
                "they may have changed since: pack into another --out"
            )

    def finished(self) -> Index | None:
        """The index, where there is one and its shards are there; raises ValueError where one is not."""
        path = self._out / INDEX_NAME
        if not path.is_file():
            return None
        index = parse_index(path.read_bytes(), str(path))
        for shard in index.shards:
            if not _has_size(self._out / shard.name, shard.bytes):
                raise ValueError(
                    f"shard {self._out / shard.name} is missing or not of {shard.bytes} bytes; remove "
                    f"{path} and run the same command again to pack anew"
                )
        self._forget()
        return index

    def record(self, job: ShardJob) -> ShardRecord | None:
        """The outcome of a job, where it is done and its shard is still there in full."""
        path = self._folder / f"{job.name}.json"
        if not path.is_file():
            return None
        record = ShardRecord.from_json(path.read_text("utf-8"))
        if record.shard is not None and not _has_size(self._out / job.name, record.shard.bytes):
            return None
        return record

    def remember(self, job: ShardJob, record: ShardRecord) -> None:
        """Write down a finished shard, so that a resumed run skips it."""
        write_text(self._folder / f"{job.name}.json", record.to_json())

    def finish(self, index: Index) -> None:
        """The index comes last: a folder that has one is whole."""
        write_text(self._out / INDEX_NAME, index.to_json())
        self._forget()

    def _forget(self) -> None:
        # A million objects' lines stand in objects.jsonl by now.
        shutil.rmtree(self._folder, ignore_errors=True)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
