"""What was found in shards that are checked, kept in `<folder>/.verify/` until the whole set is: a killed
run goes on, and several machines check a part each."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_tools.reprojection import Tally
from lgm.data.schema.sample import ShardInfo
from lgm.errors import first_line
from lgm.files import atomic

_FOLDER_NAME = ".verify"
_VERSION = 1  # of the checks: a record of other ones is not used


@dataclass(frozen=True)
class ShardReport:
    """lines: what the shard's objects are in objects.jsonl. num_free: objects without canonical views."""

    uids: tuple[str, ...]
    lines: tuple[str, ...]
    num_images: int
    faults: tuple[str, ...]
    num_free: int = 0
    tally: Tally = field(default_factory=Tally)

    def to_json(self) -> str:
        """The report as one line."""
        return json.dumps({**vars(self), "tally": vars(self.tally)})  # asdict takes a Counter apart

    @classmethod
    def from_json(cls, text: str) -> ShardReport:
        """The inverse of `to_json`; raises ValueError or KeyError for other text."""
        content = json.loads(text)
        counts = content.pop("tally")
        tally = Tally(**{k: Counter(v) if isinstance(v, dict) else v for k, v in counts.items()})
        lists = {name: tuple(content.pop(name)) for name in ("uids", "lines", "faults")}
        return cls(**lists, **content, tally=tally)


@dataclass
class Findings:
    """What all shards' reports add up to."""

    num_faults: int = 0
    num_images: int = 0
    num_free: int = 0
    uids: set[str] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)

    def say(self, faults: Iterable[str]) -> None:
        """Print faults, a line each, and count them."""
        for fault in faults:
            print(fault, flush=True)
            self.num_faults += 1

    def add(self, shard: ShardInfo, report: ShardReport) -> None:
        """Print a shard's faults and objects that an earlier shard has, and add its counts."""
        self.say(report.faults)
        repeated = (uid for uid in report.uids if uid in self.uids)
        self.say(f"shard {shard.name}: object {uid!r}: stands twice in the set" for uid in repeated)
        self.uids.update(report.uids)
        self.num_images += report.num_images
        self.num_free += report.num_free
        self.tally.merge(report.tally)


@dataclass(frozen=True)
class Records:
    """folder: the data set's. settings: what a shard's report depends on besides its bytes. is_kept: whether
    records are written, which a folder that may only be read forbids.

    A record counts for the file that was read: its size and the time of its last change are on record.
    """

    folder: Path
    settings: dict[str, Any]
    is_kept: bool = True

    def has(self, shard: ShardInfo) -> bool:
        """Whether the shard's record is of this file and of these settings."""
        try:
            with self._path(shard).open(encoding="utf-8") as file:
                return json.loads(file.readline()) == json.loads(self._head(shard))
        except (OSError, ValueError):
            return False

    def read(self, shard: ShardInfo) -> ShardReport:
        """The report on record; `has` must be true."""
        _, _, text = self._path(shard).read_text("utf-8").partition("\n")
        return ShardReport.from_json(text)

    def keep(self, shard: ShardInfo, report: ShardReport) -> None:
        """Write a shard's record, atomically; where that is not possible, a warning."""
        if not self.is_kept:
            return
        try:
            self._path(shard).parent.mkdir(exist_ok=True)
            with atomic(self._path(shard)) as partial:
                partial.write_text(f"{self._head(shard)}\n{report.to_json()}\n", "utf-8")
        except OSError as error:  # a full disk, a missing shard
            if (self.folder / shard.name).is_file():
                print(f"shard {shard.name}: its record is not kept: {first_line(error)}", file=sys.stderr)

    def forget(self) -> None:
        """Remove all records of the set."""
        shutil.rmtree(self.folder / _FOLDER_NAME, ignore_errors=True)

    def _path(self, shard: ShardInfo) -> Path:
        return self.folder / _FOLDER_NAME / f"{shard.name}.json"

    def _head(self, shard: ShardInfo) -> str:
        status = (self.folder / shard.name).stat()
        read = [status.st_size, status.st_mtime_ns]
        return json.dumps({"checks": _VERSION, **self.settings, "shard": asdict(shard), "read": read})
