"""Where a study lies: a SQLite file, a journal file, or a database server; and who runs which trial.

Beside a file, `<file>.locks` holds a lock file per running trial. The kernel releases it when the sweep that
runs the trial ends, however it ends: a trial that is marked as running and whose lock is free was killed. Who
shares the file shares the locks, also over a network file system. With a server there is no such folder, and
Optuna's heartbeats take its place.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lgm.errors import reading
from lgm.files import Locked, locked
from lgm.masking import masked

DEFAULT_NAME = "study.db"
_SQLITE, _JOURNAL = (".db", ".sqlite", ".sqlite3"), (".journal", ".log", ".jsonl")
_HEARTBEAT_S, _GRACE_S = 20, 90  # seconds; four beats may be lost before a trial counts as killed
_TAKE_LOCK, _JOURNAL_LOCK = "take.lock", "journal.lock"
_BUSY_S = 60  # how long a statement waits for another process's
_REMEDY = (
    "give hydra.sweeper.storage=<a .db or .journal file in a folder that can be written, or a database's URL>"
)


class StorageFault(ValueError):
    """A storage that cannot be opened or written."""


@dataclass(frozen=True)
class Storage:
    """backend: Optuna's storage. locks: the folder of lock files; None with a server. name: for messages."""

    backend: Any
    locks: Path | None
    name: str

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other sweep takes or gives up a trial meanwhile; with a server, they may."""
        if self.locks is None:
            yield
            return
        with locked(self.locks / _TAKE_LOCK):
            yield

    @contextmanager
    def running(self, number: int, trial_id: int) -> Iterator[None]:
        """This process runs the trial, until the block or the process ends."""
        if self.locks is None:
            with self._beating(trial_id):
                yield
            return
        path = self._lock_of(number)
        try:
            with locked(path, wait=False):
                yield
        finally:
            with suppress(OSError):
                path.unlink()  # the trial has ended by then, and is asked for no more

    def is_running(self, number: int) -> bool:
        """Whether a process runs the trial; of files alone."""
        try:
            with locked(self._lock_of(number), wait=False):
                return False
        except Locked:
            return True

    def _lock_of(self, number: int) -> Path:
        return self.locks / f"{number}.lock"

    @contextmanager
    def _beating(self, trial_id: int) -> Iterator[None]:
        ended = threading.Event()
        self.backend.record_heartbeat(trial_id)

        def beat() -> None:
            while not ended.wait(_HEARTBEAT_S):
                with suppress(Exception):  # a server that is away for a moment
                    self.backend.record_heartbeat(trial_id)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def open_storage(where: str | None, folder: Path) -> Storage:
    """Open, or make, the storage of a study.

    where: a path that ends in .db (SQLite) or .journal (Optuna's journal), or a URL as SQLAlchemy has them;
        None is `<folder>/study.db`.
    Raises StorageFault in one line for what cannot be opened or written.
    """
    where = str(folder / DEFAULT_NAME) if where is None else str(where)
    if "://" in where and not where.startswith("sqlite:///"):
        with _opening(where):
            return Storage(_server(where), None, masked(where))
    path = Path(where.removeprefix("sqlite:///")).expanduser()
    is_sqlite = where.startswith("sqlite:///") or path.suffix in _SQLITE
    if not is_sqlite and path.suffix not in _JOURNAL:
        raise StorageFault(
            f"hydra.sweeper.storage={where}: its suffix says neither SQLite nor journal; {_REMEDY}"
        )
    with _opening(where):
        _check_writable(path)
        locks = path.with_name(f"{path.name}.locks")
        locks.mkdir(parents=True, exist_ok=True)
        _check_locks(locks)
        with locked(locks / _TAKE_LOCK):  # two processes that make the tables at once
            return Storage(_sqlite(path) if is_sqlite else _journal(path, locks), locks, str(path))


@contextmanager
def _opening(where: str) -> Iterator[None]:
    name = f"hydra.sweeper.storage={masked(where)}"
    with reading(name, _REMEDY, kind=StorageFault, verb="opened"):
        try:
            yield
        except FileNotFoundError as error:  # which would pass as it is
            raise StorageFault(f"{name} cannot be opened: {error}; {_REMEDY}") from error


def _check_writable(path: Path) -> None:
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if path.is_dir() or (existing != path.absolute() and not existing.is_dir()):
        raise ValueError(f"{existing} is {'a folder' if path.is_dir() else 'no folder'}")
    if not os.access(existing, os.W_OK) or (path.exists() and not os.access(path.parent, os.W_OK)):
        raise ValueError(f"{existing} cannot be written")


def _check_locks(folder: Path) -> None:
    """`locked` goes on without a lock where there is none; here everything hangs on them."""
    import fcntl

    path = folder / f"probe-{os.getpid()}"
    try:
        with path.open("a+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"its file system has no locks ({error})") from error
    finally:
        path.unlink(missing_ok=True)


def _sqlite(path: Path) -> Any:
    from optuna.storages import RDBStorage

    url = f"sqlite:///{path}"
    return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _BUSY_S}})


def _server(url: str) -> Any:
    from optuna.storages import RDBStorage

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # heartbeats are experimental by its own word
        return RDBStorage(url, heartbeat_interval=_HEARTBEAT_S, grace_period=_GRACE_S)


def _journal(path: Path, locks: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    _drop_partial_line(path, locks)
    lock: Any = _KernelLock(locks / _JOURNAL_LOCK)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


class _KernelLock:
    """As Optuna's journal takes a lock. Its own lock files stay behind after a kill, until somebody breaks
    them half a minute later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = ExitStack()

    def acquire(self) -> bool:
        self._held.enter_context(locked(self._path))
        return True

    def release(self) -> None:
        self._held.close()


def _drop_partial_line(path: Path, locks: Path) -> None:
    """A writer that was killed in mid-line leaves a journal that nobody can read on."""
    if not path.is_file():
        return
    with locked(locks / _JOURNAL_LOCK), path.open("rb+") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
