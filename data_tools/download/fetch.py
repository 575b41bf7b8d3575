"""One file from a server or a folder: it appears under its name only when whole.

Until then it is `<name>.partial`, which the next attempt, or the next run, continues where the server
takes ranges and says (ETag or Last-Modified) that the file is still the same.

Not one downloader with `lgm.data.transport` and `lgm.multiview.hub`, which share checksums and atomic writes
with this one (`lgm.files`). This one asks strangers for a million files over kept connections (requests, an
extra), in threads that a signal stops, and believes a partial file only by its validator. Training reads
shards of one data set, whose sizes and checksums the index states, within deadlines in forked loader
workers, from s3 and commands too, and must run without requests. The hub's client keeps a cache of its own
layout that other programs share.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import requests
from urllib3.exceptions import HTTPError

from data_tools.download.content import check_content
from data_tools.download.faults import FetchError, plain
from data_tools.download.session import Sessions
from lgm.errors import shown

PARTIAL_SUFFIX = ".partial"
_CHUNK_BYTES = 1 << 16
_TEMPORARY_STATUS = (408, 425, 429, 500, 502, 503, 504, 520, 522, 524)
_LONGEST_PAUSE_S = 60.0
# An attempt that brought this much is no failure: a line that breaks often still ends with the file.
_PROGRESS_BYTES = 1 << 16
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Stopped(Exception):
    """The run is being ended while this file was under way."""


class FolderUnusable(ValueError):
    """The disk is full or read-only: no other file will fare better."""


@dataclass(frozen=True)
class FetchOptions:
    """timeout_s: without an answer or a byte. min_bytes_per_s: slower than this for timeout_s is a failure.
    max_bytes: of one file; a server may send without end.
    token: sent to `token_host` alone (Hugging Face lets known callers ask more often)."""

    timeout_s: float = 30.0
    retries: int = 5
    backoff_s: float = 1.0
    min_bytes_per_s: float = 1000.0
    max_bytes: int = 4_000_000_000
    token: str | None = None
    token_host: str = ""


class Fetcher:
    """Fetches files, from any number of threads; `stop` ends them all soon."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self._sessions = Sessions()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End all transfers at their next chunk; partial files stay for a later run."""
        self._stopping.set()

    def fetch(self, url: str, path: Path, sha256: str | None = None, impatient: bool = False) -> None:
        """Bring `url` (http, https, file, or a local path) to `path`.

        sha256: what the content must have; without it a .glb's own header is checked.
        impatient: a server that can't be reached is asked once only.
        Raises FetchError, Stopped, FolderUnusable.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _open_partial(path) as (file, partial):
                self._fetch_into(file, url, path, sha256, impatient)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
                _validator_path(path).unlink(missing_ok=True)
        except OSError as error:
            if error.errno in _FULL:
                raise FolderUnusable(f"{path.parent} can't be written to: {error.strerror}") from error
            raise FetchError(f"{path}: {error.strerror or error}") from error

    def answers(self, url: str) -> bool:
        """Whether the URL's server answers at all, whatever it says; True of a local path."""
        if _is_local(url):
            return True
        try:
            with self._sessions.get(url, lambda _: {}, self._options.timeout_s):
                return True
        except (requests.RequestException, HTTPError):
            return False

    def _fetch_into(self, file: BinaryIO, url: str, path: Path, sha256: str | None, impatient: bool) -> None:
        failures, furthest = 0, file.seek(0, os.SEEK_END)
        while True:
            try:
                if _is_local(url):
                    _copy(url, file)
                    is_doubtful = False
                else:
                    is_doubtful = self._attempt(url, file, path, sha256 is not None)
                fault = check_content(file, path.suffix, sha256)
                if fault is None:
                    return
                file.truncate(0)
                # A wrong joint between two attempts, or an end that no length told of, may explain it;
                # a whole download that is wrong stays so.
                raise FetchError(fault, temporary=is_doubtful)
            except FetchError as error:
                # By how far it ever came: a server that begins anew each time makes none.
                size = file.seek(0, os.SEEK_END)
                failures = 1 if size >= furthest + _PROGRESS_BYTES else failures + 1
                furthest = max(furthest, size)
                if not error.temporary or (error.offline and impatient):
                    raise
                if failures > self._options.retries:
                    raise FetchError(f"{error}; {failures} attempts", offline=error.offline) from error
                self._pause(failures, error.wait_s)

    def _pause(self, failures: int, wait_s: float) -> None:
        backoff = self._options.backoff_s * 2 ** (failures - 1) * random.uniform(0.5, 1.5)
        if self._stopping.wait(min(max(backoff, wait_s), _LONGEST_PAUSE_S)):
            raise Stopped

    def _attempt(self, url: str, file: BinaryIO, path: Path, has_checksum: bool) -> bool:
        """Go on with the file where that is possible; whether it was continued, or of unknown length."""
        validator_path = _validator_path(path)
        validator = validator_path.read_text("utf-8") if validator_path.is_file() else ""
        offset = file.seek(0, os.SEEK_END)
        if offset and not (validator or has_checksum):
            file.truncate(0)
            offset = 0
        headers = {"Accept-Encoding": "identity"}  # ranges count the bytes of the file itself
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if validator:
                headers["If-Range"] = validator

        def headers_of(url: str) -> dict[str, str]:
            if self._options.token and urlsplit(url).hostname == self._options.token_host:
                return {**headers, "Authorization": f"Bearer {self._options.token}"}
            return headers

        try:
            with self._sessions.get(url, headers_of, self._options.timeout_s) as response:
                if response.status_code == 416:
                    return _whole_already(response, file, offset)
                _check_status(response, path)
                if response.status_code == 206:
                    begins_there = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
                    if not offset or not begins_there:
                        file.truncate(0)
                        raise FetchError("the server answered with another range", temporary=True)
                else:
                    offset = 0
                    file.truncate(0)
                    validator_path.write_text(_validator(response), "utf-8")
                has_length = self._receive(response, file, offset)
        except (requests.RequestException, HTTPError) as error:
            raise plain(error) from error
        return offset > 0 or not has_length

    def _receive(self, response: requests.Response, file: BinaryIO, offset: int) -> bool:
        """Write what comes; whether the server said how much that is."""
        length = _whole_number(response.headers.get("Content-Length", ""))
        expected = None if length is None else offset + length
        if expected is not None and expected > self._options.max_bytes:
            file.truncate(0)
            raise FetchError(f"it has {expected} bytes, more than --max-bytes {self._options.max_bytes}")
        file.seek(offset)
        window_start, window_bytes = time.monotonic(), 0
        # read1, not read: a server that drips must not hold a thread until a whole chunk is there.
        while chunk := response.raw.read1(_CHUNK_BYTES):
            if self._stopping.is_set():
                raise Stopped
            if file.tell() + len(chunk) > self._options.max_bytes:
                file.truncate(0)
                raise FetchError(f"it sends more than --max-bytes {self._options.max_bytes}")
            file.write(chunk)
            window_bytes += len(chunk)
            passed = time.monotonic() - window_start
            if passed > self._options.timeout_s:
                if window_bytes < self._options.min_bytes_per_s * passed:
                    raise FetchError(f"too slow: {window_bytes / passed:.0f} bytes a second", temporary=True)
                window_start, window_bytes = time.monotonic(), 0
        file.flush()
        if expected is not None and file.tell() != expected:
            raise FetchError(f"cut off after {file.tell()} of {expected} bytes", temporary=True)
        return expected is not None


@contextmanager
def _open_partial(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """The partial file, for this process alone; left behind for the next attempt if something goes wrong."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with partial.open("ab+") as file:
        # Not `lgm.files.locked`: that writes its holder into a lock file, and what is locked here is the
        # content itself; a lock file beside each of a million downloads would have to stay. `flock` goes by
        # descriptor, so that two threads exclude each other too. Forks would inherit it, but this command
        # makes none, and the kernel frees it when the process ends, however it ends.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FetchError("another process is fetching it", busy=True) from error
        # Another process may have finished and renamed it between the two lines above.
        if not partial.exists() or os.fstat(file.fileno()).st_ino != partial.stat().st_ino:
            raise FetchError("another process has just fetched it; run again to see it", busy=True)
        try:
            yield file, partial
        finally:
            if partial.exists() and partial.stat().st_size == 0:
                partial.unlink()
                _validator_path(path).unlink(missing_ok=True)


def _validator_path(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL_SUFFIX + ".etag")


def _validator(response: requests.Response) -> str:
    """The value of `If-Range`: a strong ETag, or the time of the last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _whole_already(response: requests.Response, file: BinaryIO, offset: int) -> bool:
    """Status 416: nothing lies behind what we have. A run killed just before the renaming leaves that."""
    if response.headers.get("Content-Range", "") == f"bytes */{offset}":
        return True
    file.truncate(0)
    raise FetchError("the file on the server is another one now", temporary=True)


def _check_status(response: requests.Response, path: Path) -> None:
    status = response.status_code
    if status >= 400:
        wait_s = float(_whole_number(response.headers.get("Retry-After", "")) or 0)
        reason = shown(response.reason)
        raise FetchError(f"HTTP {status} {reason}", status in _TEMPORARY_STATUS, wait_s=wait_s)
    if status not in (200, 203, 206):
        raise FetchError(f"HTTP {status} {shown(response.reason)}, expected 200 with the file")
    is_page = response.headers.get("Content-Type", "").startswith("text/html")
    if is_page and path.suffix.lower() not in (".html", ".htm"):
        raise FetchError("the server sent a web page instead of the file")


def _whole_number(text: str) -> int | None:
    """Of a header; None where it is none, or beyond any size and time."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _is_local(url: str) -> bool:
    return urlsplit(url).scheme in ("", "file")


def _copy(url: str, file: BinaryIO) -> None:
    parts = urlsplit(url)
    source = Path(unquote(parts.path) if parts.scheme else url)
    if not source.is_file():
        raise FetchError(f"{source} does not exist")
    file.truncate(0)
    with source.open("rb") as content:
        shutil.copyfileobj(content, file, 1 << 20)
