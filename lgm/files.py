"""Files that several processes share: atomic writes, file locks that end with their process, checksums."""

from __future__ import annotations

import codecs
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL_SUFFIX = ".partial"
_ASK_EVERY_S = 0.05
_CHUNK = 1 << 20
# UTF-32's mark begins with UTF-16's, and stands first.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Locked(Exception):
    """Another process or thread holds the lock; `holder` names it, as far as the lock file does."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by {holder}")
        self.holder = holder


@contextmanager
def atomic(path: str | Path, sync: bool = False, alone: bool = False) -> Iterator[Path]:
    """The path to write to, so that a reader finds the old file at `path` or the complete new one: the
    partial file is renamed at the end of the block, and removed where the block raises.

    sync: wait for the disk before the rename, so that a power cut cannot leave an empty file either.
    alone: no other process writes this file; the next write then takes the place of a partial file that a
        kill has left.
    """
    path = Path(path)
    writer = "" if alone else f".{os.getpid()}"
    partial = path.with_name(f"{path.name}{writer}{PARTIAL_SUFFIX}")
    try:
        yield partial
        if sync:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        # rename(2) is atomic within a file system, which a file beside the target is always in.
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, sync: bool = False) -> None:
    """Atomic write of UTF-8 text; makes the folder where it is missing. sync: as of `atomic`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path, sync) as partial:
        partial.write_text(text, encoding="utf-8")


def text_encoding(path: str | Path) -> str:
    """The encoding of a text file that a person or another program wrote, by its byte order mark: UTF-16 or
    UTF-32, as PowerShell's `>` and Windows' editors write them, else UTF-8, whose own mark is skipped."""
    with Path(path).open("rb") as file:
        start = file.read(4)
    marks = (encoding for mark, encoding in _BYTE_ORDER_MARKS.items() if start.startswith(mark))
    return next(marks, "utf-8-sig")


def read_text(path: str | Path) -> str:
    """A text file in its `text_encoding`; raises OSError, or UnicodeDecodeError (a ValueError)."""
    return Path(path).read_text(text_encoding(path))


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `<name>.damaged-1`, or the next free number; returns where it lies now."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.replace(aside)
    return aside


def sha256_of(file: BinaryIO) -> str:
    """The SHA-256 of what a file holds from its position on, in hex, read in chunks."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hex; raises OSError."""
    with Path(path).open("rb") as file:
        return sha256_of(file)


# A POSIX record lock belongs to the process, not to the file's descriptor: a second one by the same
# process succeeds, and closing any descriptor of the file releases it. So each process keeps a lock of
# its own beside it, by the file's path, and opens no lock file that it holds.
_held: dict[str, threading.Lock] = {}
_guard = threading.Lock()


@contextmanager
def locked(path: str | Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock file at `path`, over all processes and threads of a machine.

    The kernel releases it when this process ends, however it ends. `fcntl.lockf`, not `flock`: that one
    is inherited by forks, and would stay with the loader's workers of a process that was killed.

    wait: until it is free; otherwise raises `Locked`.
    A file system without locks gives none.
    """
    import fcntl  # there is none on Windows, where this module must still import

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    process_lock = _own_lock(path)
    if not process_lock.acquire(blocking=wait):
        raise Locked(path, _this_process())
    try:
        with path.open("a+") as file:
            while True:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except (BlockingIOError, PermissionError) as error:  # either, by POSIX
                    if not wait:
                        file.seek(0)
                        raise Locked(path, file.read().strip() or "another process") from error
                    # Asked for again and again: to a kernel that waits for it, threads of two processes
                    # with two locks look like a deadlock (EDEADLK).
                    time.sleep(_ASK_EVERY_S)
                except OSError:  # a file system without locks
                    break
                else:
                    break
            with suppress(OSError):  # a full disk: only the name of the holder is lost
                file.truncate(0)
                file.write(_this_process())
                file.flush()
            yield
    finally:
        process_lock.release()


def _own_lock(path: Path) -> threading.Lock:
    """This process's lock for that lock file, by its real path."""
    with _guard:
        return _held.setdefault(os.path.realpath(path), threading.Lock())


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _forget_locks() -> None:
    """A fork holds none of its parent's record locks."""
    global _guard
    _guard = threading.Lock()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
