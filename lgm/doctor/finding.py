"""Findings of the doctor's checks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from lgm.errors import first_line

# broken: training cannot run. warning: it can, but worse than it should. missing: an option is not there.
State = Literal["ok", "missing", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    seen: what was seen. advice: what to do about it; empty where nothing is to be done.
    """

    what: str
    state: State
    seen: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """A named check of the machine.

    run: yields findings as it makes them, so that what it knew survives its own crash.
    essential: whether training cannot run where the check fails altogether.
    """

    name: str
    run: Callable[[], Iterator[Finding]]
    essential: bool = False

    def failed(self, reason: str) -> Finding:
        """The finding for a check that itself failed, e.g. with a crash."""
        state: State = "broken" if self.essential else "warning"
        return Finding(self.name, state, reason, "this check itself failed: please report it with this line")


def with_type(error: BaseException) -> str:
    """An exception in one line, with its type: the message alone may say little."""
    line, name = first_line(error), type(error).__name__
    return line if line == name else f"{name}: {line}"
