"""Access to shard files: in a folder, or behind a URL with a bounded LRU cache on the local disk."""

from __future__ import annotations

import io
import os
import re
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lgm.data.schema.names import MOST_OFFSETS_BYTES, checked_name, offsets_name
from lgm.data.schema.sample import ShardInfo
from lgm.data.transport.claims import Claims
from lgm.data.transport.urls import fetch, is_url, join_url
from lgm.files import locked, sha256_of
from lgm.masking import masked

_PARTIAL = ".partial"
_PARTIAL_SIZE = re.compile(r"\.([0-9]{1,16})\.partial$")
_STALE_S = 3600.0  # a file that did not grow for so long was left by a process that died
_SHORT = 16  # digits of a shard's checksum, by which it is known in the cache
_FORGET_S = 600.0  # a shard that could not be fetched is asked for again after so long


class ShardFiles(ABC):
    """Opens the shards of a data set for random access.

    path: a folder or a URL prefix. The attribute is what log and error lines call it: credentials are masked.
    cache_dir: for what is worth keeping on this machine.
    """

    def __init__(self, path: str, cache_dir: Path) -> None:
        self._path = path
        self.path = masked(path)
        self.cache_dir = cache_dir

    def url(self, name: str) -> str:
        """The name of a file in log and error lines: its path or URL, credentials masked."""
        return masked(self._url(name))

    def _url(self, name: str) -> str:
        return join_url(self._path, name)

    def read(self, name: str, max_bytes: int) -> bytes:
        """A small file, whole; raises FileNotFoundError, or OSError, also where it is larger."""
        held = io.BytesIO()
        self.copy(name, held, max_bytes)
        return held.getvalue()

    @abstractmethod
    def copy(self, name: str, file: BinaryIO, max_bytes: int) -> None:
        """Write a file of the set into an empty one; raises FileNotFoundError, or OSError, also where it is
        larger."""

    @abstractmethod
    def open(self, shard: ShardInfo) -> BinaryIO:
        """A shard, seekable; raises FileNotFoundError or OSError."""

    @abstractmethod
    def check(self, shards: Sequence[ShardInfo], num_readers: int) -> None:
        """Raise ValueError or FileNotFoundError for what can be seen without reading shards.

        num_readers: loader processes on this machine, each with a shard in hand.
        """

    def offsets(self, shard: ShardInfo) -> bytes | None:
        """The shard's table of offsets (`lgm.data.transport.offsets`), unchecked; None where there is none.
        Raises OSError."""
        return None

    def prefetch(self, shard: ShardInfo) -> None:  # noqa: B027 (in a folder all are ready)
        """This shard is read next: have it ready."""


class LocalFiles(ShardFiles):
    """Shards in a folder."""

    def path_of(self, name: str) -> Path:
        """The path of a file of the set."""
        return Path(self._url(name))

    def copy(self, name: str, file: BinaryIO, max_bytes: int) -> None:
        path = self.path_of(name)
        with path.open("rb") as source:
            if (size := os.fstat(source.fileno()).st_size) > max_bytes:
                raise OSError(
                    f"{path} has {size} bytes, more than the {max_bytes} that are read of such a file"
                )
            shutil.copyfileobj(source, file)

    def open(self, shard: ShardInfo) -> BinaryIO:
        return self.path_of(shard.name).open("rb")

    def offsets(self, shard: ShardInfo) -> bytes | None:
        name = offsets_name(shard.name)
        return self.read(name, MOST_OFFSETS_BYTES) if self.path_of(name).is_file() else None

    def check(self, shards: Sequence[ShardInfo], num_readers: int) -> None:
        """Every shard exists and has the size that index.json says."""
        for shard in shards:
            file = self.path_of(shard.name)
            if not file.is_file():
                raise FileNotFoundError(
                    f"shard {file} is missing, though index.json names it; pack the set again"
                )
            if file.stat().st_size != shard.bytes:
                raise ValueError(
                    f"shard {file} has {file.stat().st_size} bytes, index.json says {shard.bytes}; "
                    "it was cut off or changed: copy it again"
                )


class UrlFiles(ShardFiles):
    """Shards behind a URL: fetched whole once, checked, kept on disk while there is room.

    All processes of a machine, and all data sets, share one cache. A shard appears in it only when
    whole; its name holds its checksum, so a set that is packed anew never meets an old shard.

    cache_dir: on a local disk. cache_bytes: what lies in it never takes more than this; what was used
        longest ago goes first.
    """

    def __init__(self, path: str, cache_dir: Path, cache_bytes: int) -> None:
        super().__init__(path, cache_dir)
        self.cache_bytes = cache_bytes
        self._failed: dict[str, tuple[float, str]] = {}
        self._ahead: set[str] = set()
        self._claims = Claims(cache_dir / "locks")
        # The shard that a stream reads, and the one that it reads next; known once it has asked for one
        # ahead.
        self._in_hand: str | None = None
        self._next: str | None = None

    def copy(self, name: str, file: BinaryIO, max_bytes: int) -> None:
        """Always a new request, never the cache."""
        # Always asked for anew: the index says which shards are the right ones.
        fetch(self._url(name), file, max_bytes=max_bytes)

    def open(self, shard: ShardInfo) -> BinaryIO:
        """A shard from the cache, downloaded first where it is not there."""
        path = self._cached(shard)
        if self._next is not None and shard.sha256 != self._in_hand:
            self._claim(in_hand=shard.sha256, ahead=self._next)
        while True:
            try:
                file = path.open("rb")
                os.utime(file.fileno())  # what was used last goes last
                return file
            except FileNotFoundError:
                if reason := self._recent_fault(shard):
                    # Patience was spent on it once; not for each of its objects.
                    raise OSError(reason) from None
                self._fetch_or_remember(shard, path)

    def _fetch_or_remember(self, shard: ShardInfo, path: Path) -> None:
        try:
            self._fetch(shard, path)
        except OSError as error:
            self._failed[shard.name] = (time.monotonic(), str(error))
            raise
        self._failed.pop(shard.name, None)

    def _recent_fault(self, shard: ShardInfo) -> str | None:
        failed_at, reason = self._failed.get(shard.name, (0.0, None))
        return reason if time.monotonic() - failed_at < _FORGET_S else None

    def check(self, shards: Sequence[ShardInfo], num_readers: int) -> None:
        """The cache's bound, and the disk, hold two shards per reader."""
        # Each reader has a shard in hand and the next one on its way.
        needed = min(2 * num_readers * max(s.bytes for s in shards), sum(s.bytes for s in shards))
        if self.cache_bytes < needed:
            raise ValueError(
                f"data.cache_bytes={self.cache_bytes} is too little for {num_readers} loader processes "
                f"with two shards each; {needed} are needed, or fewer data.num_workers"
            )
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        disk = os.statvfs(self.cache_dir)
        held = sum(size for _, size, _ in self._entries())
        room = disk.f_bavail * disk.f_frsize + held
        if room < needed:
            raise ValueError(
                f"data.cache_dir={self.cache_dir} has room for {room} bytes and {needed} are needed; "
                "give a folder on a larger disk, or fewer data.num_workers"
            )

    def prefetch(self, shard: ShardInfo) -> None:
        """Download a shard in a thread, unless it is cached, failed recently or is on its way."""
        path = self._cached(shard)
        # A stream asks for the next shard when it comes to the one that it asked for last.
        self._claim(in_hand=self._next, ahead=shard.sha256)
        if not path.exists() and not self._recent_fault(shard) and shard.name not in self._ahead:
            self._ahead.add(shard.name)
            threading.Thread(target=self._fetch_quietly, args=(shard, path), daemon=True).start()

    def _fetch_quietly(self, shard: ShardInfo, path: Path) -> None:
        with suppress(OSError):  # raised again where the shard is opened
            self._fetch_or_remember(shard, path)
        self._ahead.discard(shard.name)

    def _claim(self, in_hand: str | None, ahead: str) -> None:
        self._in_hand, self._next = in_hand, ahead
        self._claims.hold(sha256[:_SHORT] for sha256 in (in_hand, ahead) if sha256 is not None)

    def _cached(self, shard: ShardInfo) -> Path:
        return self.cache_dir / f"{shard.sha256[:_SHORT]}-{checked_name(shard.name)}"

    def _fetch(self, shard: ShardInfo, path: Path) -> None:
        """Fetch a shard unless another process or thread does: then wait for that one."""
        with locked(self.cache_dir / "locks" / shard.sha256[:_SHORT]):
            if path.exists():
                return
            # The name says how much room it will take.
            partial = path.with_name(f"{path.name}.{shard.bytes}{_PARTIAL}")
            try:
                with locked(self.cache_dir / "locks" / "room"), partial.open("wb+") as file:
                    self._make_room()
                with partial.open("rb+") as file:
                    fetch(self._url(shard.name), file, shard.bytes)
                    _check_content(file, shard, self.url(shard.name))
                # Atomic: a shard appears under its name only when complete and checked.
                partial.rename(path)
            finally:
                partial.unlink(missing_ok=True)

    def _make_room(self) -> None:
        """Remove what was used longest ago, and only where that is not enough what some reader has in hand or
        asked for ahead: it would be fetched again at once."""
        whole, held = [], 0
        for used_at, size, path in sorted(self._entries()):
            is_partial = path.name.endswith(_PARTIAL)
            if is_partial and time.time() - used_at > _STALE_S:
                path.unlink(missing_ok=True)
                continue
            held += size
            if not is_partial:
                whole.append((size, path))
        for spares in (True, False):
            for size, path in whole:
                if held <= self.cache_bytes:
                    return
                if path.exists() and not (spares and self._claims.is_claimed(path.name[:_SHORT])):
                    path.unlink(missing_ok=True)
                    held -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """When it was last used, what it takes or will take, and where it lies."""
        for path in self.cache_dir.glob("*.tar*"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process made room
                continue
            promised = _PARTIAL_SIZE.search(path.name)
            yield status.st_mtime, int(promised[1]) if promised else status.st_size, path


def shard_files(path: str, cache_dir: str | Path | None, cache_bytes: float) -> ShardFiles:
    """The shard files of a folder or of a URL prefix; cache_dir None is ~/.cache/lgm."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lgm"
    folder = Path(cache_dir or default).expanduser()
    return UrlFiles(path, folder, int(cache_bytes)) if is_url(path) else LocalFiles(path, folder)


def _check_content(file: BinaryIO, shard: ShardInfo, url: str) -> None:
    size = file.seek(0, os.SEEK_END)
    if size != shard.bytes:
        raise OSError(f"{url} has {size} bytes, index.json says {shard.bytes}")
    file.seek(0)
    if sha256_of(file) != shard.sha256:
        raise OSError(f"{url}: its sha256 is not the one in index.json")
