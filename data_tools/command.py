"""What every command of this package shares: how it ends, and how files come into being."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path


def run_command(main: Callable[[], int]) -> None:
    """Leave the program with main's exit code; a person's mistake is one line and exit code 2."""
    try:
        code = main()
        sys.stdout.flush()
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # Someone read the first lines only (`| head`); Python would complain again while closing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def usable_cores() -> int:
    """Of the machine, those that this process may use: a scheduler or a container may lend some only."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_atomically(path: Path, text: str) -> None:
    """Write so that a reader finds the old file or the whole new one, never a half."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
