"""Which cached shards are in use, over all processes of a machine: a shared lock for each, which the kernel
releases when its process ends.

Who makes room in the cache spares what is claimed. Locks are `fcntl.lockf`'s, as in `lgm.files.locked`: a
record lock belongs to the process and is gone when any descriptor of the file is closed, so this module alone
opens these files, and never one that its process holds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO

_ASK_EVERY_S = 0.001  # another process asks whether it is claimed, which takes microseconds
_MOST_ASKED = 1000


@dataclass
class _Claim:
    file: IO[str]
    owners: set[int] = field(default_factory=set)


_guard = threading.Lock()
_held: dict[Path, _Claim] = {}
_owners = count()


class Claims:
    """What one reader uses of a cache. folder: of the lock files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = next(_owners)

    def hold(self, names: Iterable[str]) -> None:
        """Claim these shards, and give up what this reader claimed before."""
        wanted = {self._folder / f"{name}.use" for name in names}
        with _guard:
            mine = {path for path, claim in _held.items() if self._owner in claim.owners}
            for path in wanted - mine:
                if path not in _held:
                    _held[path] = _Claim(_shared_lock(path))
                _held[path].owners.add(self._owner)
            for path in mine - wanted:
                claim = _held[path]
                claim.owners.discard(self._owner)
                if not claim.owners:
                    del _held[path]
                    claim.file.close()

    def is_claimed(self, name: str) -> bool:
        """By any reader of this machine."""
        path = self._folder / f"{name}.use"
        with _guard:
            if path in _held:
                return True
            return _is_locked(path)


def _shared_lock(path: Path) -> IO[str]:
    import fcntl  # there is none on Windows, where this module must still import

    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    for _ in range(_MOST_ASKED):
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            time.sleep(_ASK_EVERY_S)
        except OSError:  # a file system without locks: then nothing is spared
            break
        else:
            break
    return file


def _is_locked(path: Path) -> bool:
    import fcntl

    try:
        with path.open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    return False


def _forget() -> None:
    """A fork holds none of its parent's record locks."""
    global _guard
    _guard = threading.Lock()
    for claim in _held.values():
        with suppress(OSError):
            claim.file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
