"""A lock per run folder: one run writes to it at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lgm.files import Locked, locked

# Folders that this process holds until it ends, by process: a fork holds none of its parent's.
_held: dict[tuple[int, str], ExitStack] = {}


@contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """Hold `<run_dir>/.lock`: two runs in one folder would overwrite each other's checkpoints.

    Where this process holds the folder already (`hold`), that is enough. Raises ValueError naming the process
    that holds it. Where the file system knows no locks, there is none.
    """
    if _name(run_dir) in _held:
        yield
        return
    try:
        with locked(run_dir / ".lock", wait=False):
            yield
    except Locked as error:
        raise ValueError(f"run_dir={run_dir} is in use by {error.holder}; give another run_dir") from error


def hold(run_dir: Path) -> None:
    """`exclusive` until this process ends; may be called again for the same folder."""
    if _name(run_dir) not in _held:
        stack = ExitStack()
        stack.enter_context(exclusive(run_dir))
        _held[_name(run_dir)] = stack


def _name(run_dir: Path) -> tuple[int, str]:
    return os.getpid(), os.path.realpath(run_dir)
