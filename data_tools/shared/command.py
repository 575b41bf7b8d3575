"""Shared by every command of this package: how it ends, and where it writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import lgm.stopping as stopping
from lgm.errors import RunStopped
from lgm.masking import masked


def run_command(main: Callable[[], int]) -> None:
    """Leave the program with main's exit code; a person's mistake is one line and exit code 2.

    A signal that asks for an end (`lgm.stopping`) ends the program at once: what it has written is whole.
    """
    try:
        with stopping.handled(last_resort=True):
            code = main()
            sys.stdout.flush()
    except RunStopped as stopped:
        stopping.end_workers()
        print(f"{stopped}; run the same command again to go on", file=sys.stderr)
        code = stopped.exit_code
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {masked(error)}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        # Someone read the first lines only (`| head`); Python would complain again while closing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:  # a full disk, a folder that may not be written to, a name that is too long
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        code = 2
    sys.exit(code)


def make_folder(path: Path, option: str = "--out") -> None:
    """A folder to write to, made where it is missing; raises ValueError that names the option."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(path, os.W_OK | os.X_OK)
    except FileExistsError:
        raise ValueError(f"{option} {path} is a file; give a folder") from None
    except NotADirectoryError:
        file = next((parent for parent in path.parents if parent.is_file()), path.parent)
        raise ValueError(f"{option} {path} lies below {file}, which is a file; give another folder") from None
    except OSError as error:
        raise ValueError(f"{option} {path} can't be made: {error.strerror}; give another folder") from error
    if not is_writable:
        raise ValueError(f"{option} {path} can't be written to (read-only); give another folder")


def usable_cores() -> int:
    """Of the machine, those that this process may use: a scheduler or a container may lend some only."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
