"""What every command of this package shares: how it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from lgm.masking import masked


def run_command(main: Callable[[], int]) -> None:
    """Leave the program with main's exit code; a person's mistake is one line and exit code 2."""
    try:
        code = main()
        sys.stdout.flush()
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {masked(error)}", file=sys.stderr)
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
